"""Security groups in the state store."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from ipaddress import IPv4Address, IPv4Network

from sqlalchemy import select
from sqlalchemy.orm import Session

from blocks.errors import NotFound
from blocks.resources import FirewallRule, Port, SecurityGroup, SecurityGroupRule
from blocks.state.database import Database
from blocks.state.ports import port_model
from blocks.state.tables import (
    AddressRow,
    PortGroupRow,
    PortRow,
    SecurityGroupRow,
    SecurityGroupRuleRow,
)

DEFAULT = "default"


class SecurityGroups:
    """Security groups and their rules."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def ensure_default(self, tenant_id: str) -> str:
        """Make a tenant's default group, or find it.

        As Neutron's, it lets everything out, and in what comes from the same group; unlike
        it, also SSH and ping from anyone, so that a first VM can be logged in to.

        Returns:
            Its id.
        """
        with self._database.write() as session:
            found = session.scalar(
                select(SecurityGroupRow.id).where(
                    SecurityGroupRow.tenant_id == tenant_id, SecurityGroupRow.name == DEFAULT
                )
            )
            if found is not None:
                return found
            group = SecurityGroupRow(id=str(uuid.uuid4()), tenant_id=tenant_id, name=DEFAULT)
            session.add(group)
            session.flush()
            session.add_all(
                SecurityGroupRuleRow(id=str(uuid.uuid4()), group_id=group.id, **rule)
                for rule in (
                    {"direction": "egress"},
                    {"direction": "ingress", "remote_group_id": group.id},
                    {"direction": "ingress", "protocol": "tcp", "port_min": 22, "port_max": 22},
                    {"direction": "ingress", "protocol": "icmp"},
                )
            )
            return group.id

    def find(self, tenant_id: str, name: str) -> SecurityGroup:
        """A tenant's group by name or id.

        Raises:
            NotFound: There is none.
        """
        for group in self.list(tenant_id):
            if name in (group.name, group.id):
                return group
        raise NotFound(f"there is no security group {name!r}")

    def list(self, tenant_id: str) -> list[SecurityGroup]:
        """A tenant's groups with their rules."""
        with self._database.read() as session:
            rows = session.scalars(
                select(SecurityGroupRow)
                .where(SecurityGroupRow.tenant_id == tenant_id)
                .order_by(SecurityGroupRow.name)
            ).all()
            return [
                SecurityGroup(
                    id=row.id,
                    tenant_id=row.tenant_id,
                    name=row.name,
                    rules=tuple(_rules(session, row.id)),
                )
                for row in rows
            ]

    def ports_that_name(self, groups: Collection[str], host: str) -> Sequence[Port]:
        """The ports on a host that have a rule about members of any of these groups."""
        naming = (
            select(SecurityGroupRuleRow.group_id)
            .where(SecurityGroupRuleRow.remote_group_id.in_(groups))
            .distinct()
        )
        query = (
            select(PortRow)
            .join(PortGroupRow, PortGroupRow.port_id == PortRow.id)
            .where(PortGroupRow.group_id.in_(naming), PortRow.host == host)
            .distinct()
            .order_by(PortRow.id)
        )
        with self._database.read() as session:
            return [port_model(session, row) for row in session.scalars(query).all()]

    def rules_of(self, port: Port) -> Sequence[FirewallRule]:
        """The rules that hold for a port, remote groups resolved into their addresses."""
        with self._database.read() as session:
            return [
                FirewallRule(
                    direction=rule.direction,
                    protocol=rule.protocol,
                    port_min=rule.port_min,
                    port_max=rule.port_max,
                    remotes=_remotes(session, rule),
                )
                for group in port.security_groups
                for rule in _rules(session, group)
            ]


def _remotes(session: Session, rule: SecurityGroupRule) -> tuple[IPv4Network, ...] | None:
    if rule.remote_group_id is None:
        return (rule.remote_cidr,) if rule.remote_cidr else None
    addresses = session.scalars(
        select(AddressRow.address)
        .join(PortGroupRow, PortGroupRow.port_id == AddressRow.port_id)
        .where(PortGroupRow.group_id == rule.remote_group_id)
        .order_by(AddressRow.address)
    )
    return tuple(IPv4Network(IPv4Address(address)) for address in addresses)


def _rules(session: Session, group_id: str) -> list[SecurityGroupRule]:
    rows = session.scalars(
        select(SecurityGroupRuleRow)
        .where(SecurityGroupRuleRow.group_id == group_id)
        .order_by(SecurityGroupRuleRow.id)
    )
    return [
        SecurityGroupRule.model_validate(
            {
                "id": row.id,
                "direction": row.direction,
                "protocol": row.protocol,
                "port_min": row.port_min,
                "port_max": row.port_max,
                "remote_cidr": row.remote_cidr,
                "remote_group_id": row.remote_group_id,
            }
        )
        for row in rows
    ]

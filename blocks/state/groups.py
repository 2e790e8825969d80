"""Security groups in the state store."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from ipaddress import IPv4Address, IPv4Network

from sqlalchemy import select
from sqlalchemy.orm import Session

from blocks.errors import Conflict, NotFound
from blocks.resources import FirewallRule, Port, SecurityGroup, SecurityGroupRule
from blocks.state.database import Database
from blocks.state.ports import port_model
from blocks.state.quota import require_room
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

        As Neutron's, it lets everything out, and in only what comes from the same group
        (`neutron.db.securitygroups_db.SecurityGroupDbMixin._ensure_default_security_group`).

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
                )
            )
            return group.id

    def create(self, identifier: str, tenant_id: str, name: str) -> bool:
        """Make a group; as Neutron's it lets everything out, and nothing in.

        Returns:
            False where it is there already (the same id).

        Raises:
            Conflict: The tenant has one of that name.
            QuotaExceeded: The tenant may not have one more.
        """
        with self._database.write() as session:
            if session.get(SecurityGroupRow, identifier) is not None:
                return False
            if session.scalar(
                select(SecurityGroupRow.id).where(
                    SecurityGroupRow.tenant_id == tenant_id, SecurityGroupRow.name == name
                )
            ):
                raise Conflict(f"a security group named {name!r} is there already")
            require_room(session, tenant_id, "security_groups")
            session.add(SecurityGroupRow(id=identifier, tenant_id=tenant_id, name=name))
            session.flush()
            egress = str(uuid.uuid5(uuid.UUID(identifier), "egress"))
            session.add(SecurityGroupRuleRow(id=egress, group_id=identifier, direction="egress"))
            return True

    def add_rule(self, group_id: str, rule: SecurityGroupRule) -> bool:
        """Add a rule to a group.

        Returns:
            False where it is there already (the same id).

        Raises:
            NotFound: The group is gone.
            Conflict: The group has a rule that says the same.
            QuotaExceeded: The tenant may not have one more.
        """
        with self._database.write() as session:
            group = _group_row(session, group_id)
            have = _rules(session, group_id)
            if rule.id in {each.id for each in have}:
                return False
            same = rule.model_dump(exclude={"id"})
            for each in have:
                if each.model_dump(exclude={"id"}) == same:
                    raise Conflict(f"the group {group.name!r} has this rule already: {each.id}")
            require_room(session, group.tenant_id, "security_group_rules")
            document = rule.model_dump(mode="json")
            session.add(SecurityGroupRuleRow(group_id=group_id, **document))
            return True

    def remove_rule(self, group_id: str, rule_id: str) -> bool:
        """Remove a rule from a group; False where the group has none of that id."""
        with self._database.write() as session:
            row = session.get(SecurityGroupRuleRow, rule_id)
            if row is None or row.group_id != group_id:
                return False
            session.delete(row)
            return True

    def delete(self, group_id: str) -> bool:
        """Forget a group with its rules; False where it is gone.

        Raises:
            Conflict: Ports are in it, rules of other groups name it, or it is the tenant's
                default group.
        """
        with self._database.write() as session:
            row = session.get(SecurityGroupRow, group_id)
            if row is None:
                return False
            if row.name == DEFAULT:
                raise Conflict(
                    "the default group stays", hint="its rules can be removed, and others added"
                )
            users = [
                f"port {port}"
                for port in session.scalars(
                    select(PortGroupRow.port_id).where(PortGroupRow.group_id == group_id)
                )
            ]
            users += [
                f"rule {rule.id} of the group {rule.group_id}"
                for rule in session.scalars(
                    select(SecurityGroupRuleRow).where(
                        SecurityGroupRuleRow.remote_group_id == group_id,
                        SecurityGroupRuleRow.group_id != group_id,
                    )
                )
            ]
            if users:
                raise Conflict(
                    f"the security group {row.name!r} is in use",
                    hint="delete its VMs, and remove the rules that name it, first",
                    details=users,
                )
            session.delete(row)
            return True

    def get(self, group_id: str) -> SecurityGroup:
        """A group by its id.

        Raises:
            NotFound: There is none.
        """
        with self._database.read() as session:
            return _model(session, _group_row(session, group_id))

    def find(self, tenant_id: str, name: str) -> SecurityGroup:
        """A tenant's group by name or id.

        Raises:
            NotFound: There is none.
        """
        for group in self.list(tenant_id):
            if name in (group.name, group.id):
                return group
        raise NotFound(f"there is no security group {name!r}")

    def list(self, tenant_id: str | None = None) -> list[SecurityGroup]:
        """Groups with their rules by name, of one tenant or all."""
        query = select(SecurityGroupRow).order_by(SecurityGroupRow.name, SecurityGroupRow.id)
        if tenant_id is not None:
            query = query.where(SecurityGroupRow.tenant_id == tenant_id)
        with self._database.read() as session:
            return [_model(session, row) for row in session.scalars(query).all()]

    def members(self, group_id: str, host: str | None = None) -> Sequence[Port]:
        """The ports that are in a group, on one host or all."""
        query = (
            select(PortRow)
            .join(PortGroupRow, PortGroupRow.port_id == PortRow.id)
            .where(PortGroupRow.group_id == group_id)
            .order_by(PortRow.id)
        )
        if host is not None:
            query = query.where(PortRow.host == host)
        with self._database.read() as session:
            return [port_model(session, row) for row in session.scalars(query).all()]

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


def _group_row(session: Session, group_id: str) -> SecurityGroupRow:
    row = session.get(SecurityGroupRow, group_id)
    if row is None:
        raise NotFound(f"there is no security group with id {group_id}")
    return row


def _model(session: Session, row: SecurityGroupRow) -> SecurityGroup:
    return SecurityGroup(
        id=row.id, tenant_id=row.tenant_id, name=row.name, rules=tuple(_rules(session, row.id))
    )


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

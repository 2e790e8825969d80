"""What tenants may hold, in the state store."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from blocks.errors import NotFound, QuotaExceeded
from blocks.resources import PortKind
from blocks.state.database import Database
from blocks.state.tables import (
    NetworkRow,
    PortRow,
    QuotaClaimRow,
    QuotaRow,
    RouterRow,
    SecurityGroupRow,
    SecurityGroupRuleRow,
)

#: Nova's, Neutron's and Cinder's defaults, rounded to what a lab needs.
DEFAULT_QUOTA: Mapping[str, int] = {
    "instances": 100,
    "cores": 200,
    "ram_mib": 512 * 1024,
    "ports": 500,
    "volumes": 100,
    "gigabytes": 10_000,
    "networks": 200,
    "routers": 100,
    "floating_ips": 50,
    "security_groups": 50,
    "security_group_rules": 500,
}
#: What is counted where it is recorded, as Neutron does, and not reserved for an owner.
_COUNTED: Mapping[str, Select[tuple[int]]] = {
    "networks": select(func.count()).select_from(NetworkRow),
    "routers": select(func.count()).select_from(RouterRow),
    "floating_ips": select(func.count())
    .select_from(PortRow)
    .where(PortRow.kind == PortKind.FLOATING_IP),
    "security_groups": select(func.count()).select_from(SecurityGroupRow),
    "security_group_rules": select(func.count())
    .select_from(SecurityGroupRuleRow)
    .join(SecurityGroupRow, SecurityGroupRow.id == SecurityGroupRuleRow.group_id),
}
_TENANT_OF = {
    "networks": NetworkRow.tenant_id,
    "routers": RouterRow.tenant_id,
    "floating_ips": PortRow.tenant_id,
    "security_groups": SecurityGroupRow.tenant_id,
    "security_group_rules": SecurityGroupRow.tenant_id,
}


def require_room(session: Session, tenant_id: str, resource: str) -> None:
    """Check that a tenant may have one more of what is counted, in the writing transaction.

    Raises:
        QuotaExceeded: It may not.
    """
    used, limit = _standing(session, tenant_id, resource)
    if used >= limit:
        raise QuotaExceeded(
            f"the tenant's quota of {resource} is used up: {used} of {limit} in use"
        )


class Quota:
    """What tenants may hold, and what each owner holds of it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def reserve(self, tenant_id: str, owner_id: str, amounts: Mapping[str, int]) -> None:
        """Reserve for an owner, all or nothing; the same again changes nothing.

        Raises:
            QuotaExceeded: With a line for every resource of which there is not enough.
        """
        with self._database.write() as session:
            held = set(
                session.scalars(
                    select(QuotaClaimRow.resource).where(QuotaClaimRow.owner_id == owner_id)
                )
            )
            wanted = {name: n for name, n in amounts.items() if n and name not in held}
            lacking = []
            for resource, amount in wanted.items():
                used, limit = _standing(session, tenant_id, resource)
                if used + amount > limit:
                    lacking.append(f"{resource}: {amount} asked for, {used} of {limit} in use")
            if lacking:
                raise QuotaExceeded(
                    "the tenant's quota is not enough for this", details=sorted(lacking)
                )
            session.add_all(
                QuotaClaimRow(tenant_id=tenant_id, owner_id=owner_id, resource=name, amount=n)
                for name, n in wanted.items()
            )

    def resize(self, tenant_id: str, owner_id: str, resource: str, amount: int) -> bool:
        """Let an owner hold so much of a resource, more or less than before.

        Returns:
            False where it held just that.

        Raises:
            QuotaExceeded: It would hold more than before, and there is not enough.
        """
        with self._database.write() as session:
            row = session.scalar(
                select(QuotaClaimRow).where(
                    QuotaClaimRow.owner_id == owner_id, QuotaClaimRow.resource == resource
                )
            )
            more = amount - (row.amount if row else 0)
            used, limit = _standing(session, tenant_id, resource)
            if more > 0 and used + more > limit:
                raise QuotaExceeded(
                    f"the tenant's quota of {resource} is not enough: "
                    f"{more} more asked for, {used} of {limit} in use"
                )
            if row is not None and not amount:
                session.delete(row)
            elif row is not None:
                row.amount = amount
            elif more:
                session.add(
                    QuotaClaimRow(
                        tenant_id=tenant_id, owner_id=owner_id, resource=resource, amount=amount
                    )
                )
            return more != 0

    def commit(self, owner_id: str) -> None:
        """Mark what an owner reserved as used for good."""
        with self._database.write() as session:
            for row in session.scalars(
                select(QuotaClaimRow).where(QuotaClaimRow.owner_id == owner_id)
            ):
                row.committed = True

    def release(self, owner_id: str) -> int:
        """Give back all that an owner holds.

        Returns:
            How many resources it held.
        """
        with self._database.write() as session:
            rows = session.scalars(
                select(QuotaClaimRow).where(QuotaClaimRow.owner_id == owner_id)
            ).all()
            for row in rows:
                session.delete(row)
            return len(rows)

    def held(self, owner_id: str) -> dict[str, tuple[int, bool]]:
        """What an owner holds: resource to (amount, committed)."""
        with self._database.read() as session:
            rows = session.scalars(select(QuotaClaimRow).where(QuotaClaimRow.owner_id == owner_id))
            return {row.resource: (row.amount, row.committed) for row in rows}

    def set_limit(self, tenant_id: str, resource: str, limit: int) -> None:
        """Set a tenant's limit for a resource; what is held already stays.

        Raises:
            NotFound: There is no such resource.
        """
        if resource not in DEFAULT_QUOTA:
            known = ", ".join(DEFAULT_QUOTA)
            raise NotFound(f"there is no quota of {resource!r}; there are: {known}")
        with self._database.write() as session:
            session.merge(QuotaRow(tenant_id=tenant_id, resource=resource, limit=limit))

    def standing(self, tenant_id: str) -> dict[str, tuple[int, int]]:
        """How a tenant stands: resource to (in use, limit)."""
        with self._database.read() as session:
            return {name: _standing(session, tenant_id, name) for name in DEFAULT_QUOTA}


def _standing(session: Session, tenant_id: str, resource: str) -> tuple[int, int]:
    if resource in _COUNTED:
        used = session.scalar(_COUNTED[resource].where(_TENANT_OF[resource] == tenant_id))
    else:
        used = session.scalar(
            select(func.coalesce(func.sum(QuotaClaimRow.amount), 0)).where(
                QuotaClaimRow.tenant_id == tenant_id, QuotaClaimRow.resource == resource
            )
        )
    own = session.get(QuotaRow, (tenant_id, resource))
    return int(used or 0), own.limit if own else DEFAULT_QUOTA[resource]

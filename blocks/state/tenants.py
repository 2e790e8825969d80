"""Tenants, tokens, key pairs and quota in the state store."""

from __future__ import annotations

import hashlib
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from blocks.errors import Conflict, NotFound, QuotaExceeded
from blocks.state.database import Database
from blocks.state.tables import KeyPairRow, QuotaClaimRow, QuotaRow, TenantRow, TokenRow

ROLES = ("reader", "member", "admin")

#: Nova's, Neutron's and Cinder's defaults, rounded to what a lab needs.
DEFAULT_QUOTA: Mapping[str, int] = {
    "instances": 100,
    "cores": 200,
    "ram_mib": 512 * 1024,
    "ports": 500,
    "volumes": 100,
    "gigabytes": 10_000,
}


@dataclass(frozen=True)
class Caller:
    """Who is asking: a tenant, and the role that the token gives."""

    tenant_id: str
    tenant: str
    role: str
    enabled: bool
    rate_per_minute: int


def token_hash(token: str) -> str:
    """The hash under which a token is stored.

    A token is 256 random bits, so that a plain hash is as good as a slow one.
    """
    return hashlib.sha256(token.encode()).hexdigest()


class Tenants:
    """Tenants and their tokens."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, name: str) -> str:
        """Make a tenant, or find it.

        Returns:
            Its id.
        """
        with self._database.write() as session:
            row = session.scalar(select(TenantRow).where(TenantRow.name == name))
            if row is None:
                row = TenantRow(id=str(uuid.uuid4()), name=name)
                session.add(row)
            return row.id

    def issue_token(self, tenant_id: str, role: str) -> str:
        """Make a token; it is returned once and never stored in clear."""
        token = secrets.token_urlsafe(32)
        with self._database.write() as session:
            session.add(
                TokenRow(
                    id=str(uuid.uuid4()), tenant_id=tenant_id, role=role, hash=token_hash(token)
                )
            )
        return token

    def caller(self, token: str) -> Caller | None:
        """Who a token stands for; None where it is unknown."""
        with self._database.read() as session:
            # Looked up by its hash: there is nothing whose comparison could leak by time.
            row = session.execute(
                select(TenantRow, TokenRow)
                .join(TokenRow, TokenRow.tenant_id == TenantRow.id)
                .where(TokenRow.hash == token_hash(token))
            ).one_or_none()
            if row is None:
                return None
            tenant, issued = row
            return Caller(
                tenant.id, tenant.name, issued.role, tenant.enabled, tenant.rate_per_minute
            )

    def id_of(self, name: str) -> str:
        """The id of a tenant.

        Raises:
            NotFound: There is none of that name.
        """
        with self._database.read() as session:
            found = session.scalar(select(TenantRow.id).where(TenantRow.name == name))
        if found is None:
            raise NotFound(f"there is no tenant {name!r}")
        return found


class KeyPairs:
    """Named public keys."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, tenant_id: str, name: str, public_key: str, private_path: str | None) -> None:
        """Record a key pair; the same again is fine.

        Raises:
            Conflict: Another key has that name.
        """
        with self._database.write() as session:
            row = session.get(KeyPairRow, (tenant_id, name))
            if row is not None and row.public_key != public_key:
                raise Conflict(f"a different key pair named {name!r} is there already")
            session.merge(
                KeyPairRow(
                    tenant_id=tenant_id,
                    name=name,
                    public_key=public_key,
                    private_path=private_path,
                )
            )

    def get(self, tenant_id: str, name: str) -> tuple[str, str | None]:
        """A key pair's public key and, where it is a file here, the private one's path.

        Raises:
            NotFound: The tenant has none of that name.
        """
        with self._database.read() as session:
            row = session.get(KeyPairRow, (tenant_id, name))
        if row is None:
            raise NotFound(f"there is no key pair {name!r}")
        return row.public_key, row.private_path

    def list(self, tenant_id: str) -> list[tuple[str, str, str | None]]:
        """A tenant's key pairs by name: name, public key, the private one's path."""
        query = select(KeyPairRow).where(KeyPairRow.tenant_id == tenant_id)
        with self._database.read() as session:
            rows = session.scalars(query.order_by(KeyPairRow.name))
            return [(row.name, row.public_key, row.private_path) for row in rows]


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
                used, limit = self._standing(session, tenant_id, resource)
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
        """Set a tenant's limit for a resource."""
        with self._database.write() as session:
            session.merge(QuotaRow(tenant_id=tenant_id, resource=resource, limit=limit))

    @staticmethod
    def _standing(session: Session, tenant_id: str, resource: str) -> tuple[int, int]:
        used = session.scalar(
            select(func.coalesce(func.sum(QuotaClaimRow.amount), 0)).where(
                QuotaClaimRow.tenant_id == tenant_id, QuotaClaimRow.resource == resource
            )
        )
        own = session.get(QuotaRow, (tenant_id, resource))
        return int(used or 0), own.limit if own else DEFAULT_QUOTA[resource]

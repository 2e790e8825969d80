"""Tenants and tokens in the state store."""

from __future__ import annotations

import hashlib
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel, ConfigDict
from sqlalchemy import ColumnElement, select

from blocks.errors import NotFound
from blocks.state.database import Database
from blocks.state.tables import TenantRow, TokenRow

#: What a token lets its holder do, the least first (Keystone's reader, member, admin).
ROLES = ("reader", "member", "admin")


@dataclass(frozen=True)
class Caller:
    """Who is asking: a tenant, and the role that the token gives.

    Attributes:
        certified_images: The tenant makes VMs of certified images only.
    """

    tenant_id: str
    tenant: str
    role: str
    enabled: bool
    rate_per_minute: int
    certified_images: bool = False


class Tenant(BaseModel):
    """A tenant as recorded."""

    model_config = ConfigDict(frozen=True)

    id: str
    name: str
    enabled: bool
    rate_per_minute: int
    created_at: datetime
    certified_images: bool


class Token(BaseModel):
    """A token as recorded; its value is known to nobody here.

    Attributes:
        credentials: The name of the Prefect block that holds it, where one is known.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    tenant_id: str
    role: str
    credentials: str | None
    created_at: datetime


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

    def list(self) -> list[Tenant]:
        """All tenants, by name."""
        with self._database.read() as session:
            return [_tenant(row) for row in session.scalars(_BY_NAME)]

    def find(self, name: str) -> Tenant:
        """A tenant by its name or id.

        Raises:
            NotFound: There is none.
        """
        for tenant in self.list():
            if name in (tenant.name, tenant.id):
                return tenant
        raise NotFound(
            f"there is no tenant {name!r}", hint="`fifty tenant list` shows those there are"
        )

    def id_of(self, name: str) -> str:
        """The id of a tenant.

        Raises:
            NotFound: There is none of that name.
        """
        return self.find(name).id

    def set_enabled(self, tenant_id: str, *, enabled: bool) -> bool:
        """Let a tenant's requests in, or refuse them; False where that is so already."""
        with self._database.write() as session:
            row = session.get_one(TenantRow, tenant_id)
            changed = row.enabled != enabled
            row.enabled = enabled
            return changed

    def require_certificates(self, tenant_id: str, *, on: bool) -> None:
        """Let a tenant make VMs of certified images only, or of all that are active."""
        with self._database.write() as session:
            session.get_one(TenantRow, tenant_id).certified_images = on

    def issue_token(self, tenant_id: str, role: str) -> str:
        """Make a token of one of the `ROLES`; it is returned once and never stored in clear."""
        token = secrets.token_urlsafe(32)
        with self._database.write() as session:
            session.add(
                TokenRow(
                    id=str(uuid.uuid4()), tenant_id=tenant_id, role=role, hash=token_hash(token)
                )
            )
        return token

    def tokens(self, tenant_id: str) -> Sequence[Token]:
        """A tenant's tokens, the oldest first."""
        query = select(TokenRow).where(TokenRow.tenant_id == tenant_id)
        with self._database.read() as session:
            rows = session.scalars(query.order_by(TokenRow.created_at, TokenRow.id))
            return tuple(_token(row) for row in rows)

    def token(self, token: str) -> Token | None:
        """A token by its value; None where it is unknown."""
        with self._database.read() as session:
            row = session.scalar(select(TokenRow).where(TokenRow.hash == token_hash(token)))
            return _token(row) if row is not None else None

    def revoke(self, token_id: str) -> Token:
        """Forget a token: from now on it stands for nobody.

        Raises:
            NotFound: There is none with this id.
        """
        with self._database.write() as session:
            row = session.get(TokenRow, token_id)
            if row is None:
                raise NotFound(
                    f"there is no token with id {token_id!r}",
                    hint="`fifty tenant show NAME` shows a tenant's tokens",
                )
            revoked = _token(row)
            session.delete(row)
            return revoked

    def caller(self, token: str) -> Caller | None:
        """Who a token stands for; None where it is unknown."""
        # Looked up by its hash: there is nothing whose comparison could leak by time.
        return self._caller(TokenRow.hash == token_hash(token))

    def caller_of(self, credentials: str) -> Caller | None:
        """Who a Prefect credentials block stood for when it was last used or saved.

        For commands that only look, and have no time for Prefect. None where the store
        has not seen the block yet.
        """
        return self._caller(TokenRow.credentials == credentials)

    def note_credentials(self, token: str, credentials: str) -> None:
        """Remember which Prefect block holds a token; written only where that is new."""
        known = self.token(token)
        if known is None or known.credentials == credentials:
            return
        with self._database.write() as session:
            query = select(TokenRow)
            before = session.scalar(query.where(TokenRow.credentials == credentials))
            if before is not None:
                before.credentials = None
                session.flush()  # before the other one: a name stands for one token only
            row = session.get(TokenRow, known.id)
            if row is not None:
                row.credentials = credentials

    def _caller(self, which: ColumnElement[bool]) -> Caller | None:
        query = select(TenantRow, TokenRow).join(TokenRow, TokenRow.tenant_id == TenantRow.id)
        with self._database.read() as session:
            row = session.execute(query.where(which)).one_or_none()
            if row is None:
                return None
            tenant, token = row
            return Caller(
                tenant.id,
                tenant.name,
                token.role,
                tenant.enabled,
                tenant.rate_per_minute,
                tenant.certified_images,
            )


_BY_NAME = select(TenantRow).order_by(TenantRow.name)


def _tenant(row: TenantRow) -> Tenant:
    return Tenant(**{name: getattr(row, name) for name in Tenant.model_fields})


def _token(row: TokenRow) -> Token:
    return Token(**{name: getattr(row, name) for name in Token.model_fields})

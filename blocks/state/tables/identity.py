"""Tenants, their tokens, key pairs and quota."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, UniqueConstraint, false
from sqlalchemy.orm import Mapped, mapped_column

from blocks.state.tables.base import Base, now


class TenantRow(Base):
    """A tenant (Keystone's project)."""

    __tablename__ = "tenants"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    enabled: Mapped[bool] = mapped_column(default=True)
    rate_per_minute: Mapped[int] = mapped_column(default=120)
    certified_images: Mapped[bool] = mapped_column(default=False, server_default=false())
    created_at: Mapped[datetime] = mapped_column(default=now)


class TokenRow(Base):
    """A token: only the SHA-256 of its 256 random bits is kept.

    `credentials` is the name of the Prefect block that was last seen to hold it.
    """

    __tablename__ = "tokens"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    role: Mapped[str]
    hash: Mapped[str] = mapped_column(unique=True)
    credentials: Mapped[str | None] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(default=now)


class KeyPairRow(Base):
    """A named public key; the private half is the caller's, or a file of `fifty init`."""

    __tablename__ = "key_pairs"

    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    public_key: Mapped[str]
    private_path: Mapped[str | None]


class QuotaRow(Base):
    """A tenant's limit for one resource; where there is no row the default holds."""

    __tablename__ = "quotas"

    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    resource: Mapped[str] = mapped_column(primary_key=True)
    limit: Mapped[int]


class QuotaClaimRow(Base):
    """What one owner (an instance) holds of its tenant's quota."""

    __tablename__ = "quota_claims"
    __table_args__ = (UniqueConstraint("owner_id", "resource"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    owner_id: Mapped[str] = mapped_column(index=True)
    resource: Mapped[str]
    amount: Mapped[int]
    committed: Mapped[bool] = mapped_column(default=False)

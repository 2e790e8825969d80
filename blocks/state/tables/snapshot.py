"""Snapshots of instances."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from blocks.state.tables.base import Base


class SnapshotRow(Base):
    """A snapshot of an instance; its build has the same id.

    Attributes:
        claimed_by: The build that works on it; None while it is only there.
        kept: What it holds and where, as `resources.Snapshot` has it besides the columns.
    """

    __tablename__ = "snapshots"
    __table_args__ = (UniqueConstraint("instance_id", "name"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    instance_id: Mapped[str] = mapped_column(index=True)
    name: Mapped[str]
    kind: Mapped[str]
    status: Mapped[str]
    claimed_by: Mapped[str | None]
    frozen: Mapped[str | None]
    parent_id: Mapped[str | None]
    current: Mapped[bool] = mapped_column(default=False)
    kept: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]

"""Builds, their journal and their leases: what the engine remembers."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from blocks.state.tables.base import Base, now


class BuildRow(Base):
    """The making of one thing (an instance, a network): what was asked, and how it stands.

    `id` is the thing's id. `plan` is what the scheduler's steps found and chose.
    """

    __tablename__ = "builds"
    __table_args__ = (UniqueConstraint("catalogue", "credentials", "request_id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    catalogue: Mapped[str]
    name: Mapped[str] = mapped_column(index=True)
    credentials: Mapped[str]
    tenant_id: Mapped[str | None]
    request: Mapped[dict[str, Any]]
    request_id: Mapped[str]
    flow_run_id: Mapped[str | None] = mapped_column(index=True)
    generation: Mapped[int] = mapped_column(default=1)
    policy: Mapped[str] = mapped_column(default="rollback")
    state: Mapped[str] = mapped_column(default="building", index=True)
    plan: Mapped[dict[str, Any]] = mapped_column(default=dict)
    fault: Mapped[dict[str, Any] | None]
    accepted_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)


class JournalRow(Base):
    """One step of one generation: durable before the step touches anything.

    `epoch` counts how often the step was undone, so that a checkpoint from before an
    undo is never taken for one from after it.
    """

    __tablename__ = "journal"

    build_id: Mapped[str] = mapped_column(primary_key=True)
    generation: Mapped[int] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    epoch: Mapped[int] = mapped_column(default=0)
    state: Mapped[str]
    attempts: Mapped[int] = mapped_column(default=0)
    host: Mapped[str]
    boot_id: Mapped[str]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    changes: Mapped[list[Any]] = mapped_column(default=list)
    error: Mapped[dict[str, Any] | None]


class LeaseRow(Base):
    """Who works on a build right now: at most one."""

    __tablename__ = "leases"

    build_id: Mapped[str] = mapped_column(primary_key=True)
    token: Mapped[str]
    purpose: Mapped[str]
    host: Mapped[str]
    pid: Mapped[int]
    pid_started: Mapped[int]
    boot_id: Mapped[str]
    expires_at: Mapped[datetime]

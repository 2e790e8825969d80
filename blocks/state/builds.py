"""Builds and their journal in the state store: what the engine remembers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy import case, select

from blocks.changes import Change
from blocks.errors import Conflict, NotFound
from blocks.state.database import Database
from blocks.state.machine import boot_id
from blocks.state.tables import BuildRow, JournalRow
from blocks.state.tables.base import now


class StepState(StrEnum):
    """How a step stands; `pending` has no journal row."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    UNDOING = "undoing"
    UNDONE = "undone"
    UNDO_FAILED = "undo_failed"


class Build(BaseModel):
    """A build as recorded."""

    model_config = ConfigDict(frozen=True)

    id: str
    catalogue: str
    name: str
    credentials: str
    tenant_id: str | None
    request: dict[str, Any]
    request_id: str
    flow_run_id: str | None
    generation: int
    policy: str
    state: str
    plan: dict[str, Any]
    fault: dict[str, Any] | None
    accepted_at: datetime


class Entry(BaseModel):
    """A journal row."""

    model_config = ConfigDict(frozen=True)

    step: int
    generation: int
    epoch: int
    state: StepState
    attempts: int
    host: str
    boot_id: str
    started_at: datetime | None
    finished_at: datetime | None
    changes: list[Change]
    error: dict[str, Any] | None


class Builds:
    """Builds, found by their id, their request id or the flow run that works on them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def open(
        self,
        *,
        build_id: str,
        catalogue: str,
        name: str,
        credentials: str,
        request: dict[str, Any],
        request_id: str,
        flow_run_id: str | None,
        policy: str,
    ) -> tuple[Build, bool]:
        """Record a build, or find the one that this request id stands for.

        Returns:
            The build, and whether it is new.

        Raises:
            Conflict: The request id was used for a different request.
        """
        with self._database.write() as session:
            row = session.scalar(
                select(BuildRow).where(
                    BuildRow.catalogue == catalogue,
                    BuildRow.credentials == credentials,
                    BuildRow.request_id == request_id,
                )
            )
            if row is not None:
                if row.request != request:
                    raise Conflict(
                        f"the request id {request_id!r} was used for a different request",
                        hint="send the same request again, or use a new request id",
                    )
                return _build(row), False
            row = BuildRow(
                id=build_id,
                catalogue=catalogue,
                name=name,
                credentials=credentials,
                request=request,
                request_id=request_id,
                flow_run_id=flow_run_id,
                policy=policy,
                plan={},
            )
            session.add(row)
            session.flush()
            return _build(row), True

    def get(self, build_id: str) -> Build:
        """A build by its id.

        Raises:
            NotFound: There is none.
        """
        with self._database.read() as session:
            row = session.get(BuildRow, build_id)
        if row is None:
            raise NotFound(f"there is no build with id {build_id}")
        return _build(row)

    def find(self, catalogue: str, name: str, tenant_id: str) -> Build:
        """A tenant's build by its id or name: what lives, before what was refused or deleted.

        Raises:
            NotFound: There never was one.
        """
        over = case((BuildRow.state == "refused", 2), (BuildRow.state == "deleted", 1), else_=0)
        with self._database.read() as session:
            row = session.scalar(
                select(BuildRow)
                .where(
                    BuildRow.catalogue == catalogue,
                    (BuildRow.name == name) | (BuildRow.id == name),
                    (BuildRow.tenant_id == tenant_id) | BuildRow.tenant_id.is_(None),
                )
                .order_by(over, BuildRow.accepted_at.desc())
                .limit(1)
            )
        if row is None:
            raise NotFound(f"there is no {catalogue} {name!r}")
        return _build(row)

    def latest(self, catalogue: str, name: str) -> Build:
        """The last build of a name, whether or not it got to record anything else.

        Raises:
            NotFound: There never was one.
        """
        with self._database.read() as session:
            row = session.scalar(
                select(BuildRow)
                .where(BuildRow.catalogue == catalogue, BuildRow.name == name)
                .order_by(BuildRow.accepted_at.desc())
                .limit(1)
            )
        if row is None:
            raise NotFound(f"there is no {catalogue} {name!r}, and no build of one")
        return _build(row)

    def of_request(self, catalogue: str, credentials: str, request_id: str) -> Build | None:
        """The build that a request id stands for; None where there is none yet."""
        with self._database.read() as session:
            row = session.scalar(
                select(BuildRow).where(
                    BuildRow.catalogue == catalogue,
                    BuildRow.credentials == credentials,
                    BuildRow.request_id == request_id,
                )
            )
            return _build(row) if row is not None else None

    def unfinished(self) -> list[Build]:
        """Builds that are neither complete nor undone."""
        with self._database.read() as session:
            rows = session.scalars(
                select(BuildRow)
                .where(BuildRow.state.in_(("building", "undoing", "deleting")))
                .order_by(BuildRow.accepted_at)
            )
            return [_build(row) for row in rows]

    def update(self, build_id: str, **values: Any) -> None:  # noqa: ANN401 - columns of many types
        """Set columns of a build."""
        with self._database.write() as session:
            row = session.get_one(BuildRow, build_id)
            for name, value in values.items():
                setattr(row, name, value)

    def note(self, build_id: str, **facts: Any) -> None:  # noqa: ANN401 - JSON values
        """Add facts to a build's plan, in one transaction (branches run at once)."""
        with self._database.write() as session:
            row = session.get_one(BuildRow, build_id)
            row.plan = {**row.plan, **facts}


class Journal:
    """The journal: a row for each step of each generation of a build."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def intend(self, build_id: str, generation: int, step: int, host: str) -> None:
        """Write down, durably, that a step is about to touch something."""
        self._write(build_id, generation, step, host, StepState.RUNNING)

    def intend_undo(self, build_id: str, generation: int, step: int, host: str) -> None:
        """Write down, durably, that a step is about to be undone."""
        self._write(build_id, generation, step, host, StepState.UNDOING)

    def _write(
        self, build_id: str, generation: int, step: int, host: str, state: StepState
    ) -> None:
        with self._database.write() as session:
            row = session.get(JournalRow, (build_id, generation, step))
            if row is None:
                row = JournalRow(
                    build_id=build_id,
                    generation=generation,
                    step=step,
                    epoch=0,
                    attempts=0,
                    changes=[],
                )
                session.add(row)
            if state is StepState.RUNNING:
                row.attempts += 1
                row.started_at = now()
                row.finished_at = None
                row.error = None
            row.state = state
            row.host = host
            row.boot_id = boot_id()

    def close(
        self,
        build_id: str,
        generation: int,
        step: int,
        state: StepState,
        changes: Sequence[Change] = (),
        error: dict[str, Any] | None = None,
    ) -> None:
        """Write down how a step, or its undo, ended; changes add to those before."""
        with self._database.write() as session:
            row = session.get_one(JournalRow, (build_id, generation, step))
            row.state = state
            row.finished_at = now()
            row.changes = [*row.changes, *(change.model_dump() for change in changes)]
            if error is not None or state is StepState.DONE:
                row.error = error
            if state is StepState.UNDONE:
                row.epoch += 1

    def epoch(self, build_id: str, generation: int, step: int) -> int:
        """How often a step was undone in a generation."""
        with self._database.read() as session:
            row = session.get(JournalRow, (build_id, generation, step))
            return row.epoch if row is not None else 0

    def entry(self, build_id: str, generation: int, step: int) -> Entry | None:
        """One row of a generation; None where the step was not begun."""
        with self._database.read() as session:
            row = session.get(JournalRow, (build_id, generation, step))
            return _entry(row) if row is not None else None

    def entries(self, build_id: str, generation: int) -> list[Entry]:
        """A generation's rows, by step."""
        with self._database.read() as session:
            rows = session.scalars(
                select(JournalRow)
                .where(JournalRow.build_id == build_id, JournalRow.generation == generation)
                .order_by(JournalRow.step)
            )
            return [_entry(row) for row in rows]


def _build(row: BuildRow) -> Build:
    return Build(**{name: getattr(row, name) for name in Build.model_fields})


def _entry(row: JournalRow) -> Entry:
    return Entry.model_validate({name: getattr(row, name) for name in Entry.model_fields})

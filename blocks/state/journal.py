"""The journal of builds in the state store: what was begun, and how it ended."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy import select

from blocks.changes import Change
from blocks.state.database import Database
from blocks.state.leases import holds, lost
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


#: What a build that was over becomes when an effect of it turns up after all.
_NOT_OVER = {"undone": "undoing", "refused": "undoing", "deleted": "deleting"}


class Journal:
    """The journal: a row for each step of each generation of a build."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def intend(
        self, build_id: str, generation: int, step: int, host: str, lease: str | None = None
    ) -> None:
        """Write down, durably, that a step is about to touch something.

        Args:
            build_id: Whose step.
            generation: The build's generation.
            step: The step's number.
            host: Where.
            lease: The token of the lease that the writer holds.

        Raises:
            LeaseLost: Somebody else has the lease by now; nothing was written.
        """
        self._write(build_id, generation, step, host, StepState.RUNNING, lease)

    def intend_undo(
        self, build_id: str, generation: int, step: int, host: str, lease: str | None = None
    ) -> None:
        """Write down, durably, that a step is about to be undone; see `intend`."""
        self._write(build_id, generation, step, host, StepState.UNDOING, lease)

    def _write(
        self,
        build_id: str,
        generation: int,
        step: int,
        host: str,
        state: StepState,
        lease: str | None,
    ) -> None:
        with self._database.write() as session:
            if not holds(session, build_id, lease):
                raise lost(build_id)
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
        lease: str | None = None,
    ) -> None:
        """Write down how a step, or its undo, ended; changes add to those before.

        A loss of power may take this back: the row is open again then, "may have
        happened", and a do or undo of it is repeated. The next intent makes it durable.

        Raises:
            LeaseLost: Somebody else has the lease by now. If that one has undone the step
                before the effect came, the step is open again, and so is the build.
        """
        with self._database.write(durable=False) as session:
            row = session.get_one(JournalRow, (build_id, generation, step))
            held = holds(session, build_id, lease)
            if held:
                self._close(row, state, changes, error)
            elif row.state == StepState.UNDONE and state is not StepState.UNDONE:
                row.state = StepState.RUNNING
                build = session.get_one(BuildRow, build_id)
                build.state = _NOT_OVER.get(build.state, build.state)
        if not held:
            raise lost(build_id)

    @staticmethod
    def _close(
        row: JournalRow,
        state: StepState,
        changes: Sequence[Change],
        error: dict[str, Any] | None,
    ) -> None:
        row.state = state
        row.finished_at = now()
        row.changes = [*row.changes, *(change.model_dump() for change in changes)]
        if error is not None or state is StepState.DONE:
            row.error = error
        if state is StepState.UNDONE:
            row.epoch += 1

    def lose(
        self, build_id: str, generation: int, steps: Collection[int], lease: str | None
    ) -> None:
        """Write down that what some steps made is no more on the host: they are pending again.

        Each gets a checkpoint of its own when it is done once more. Until then an undo of it
        is as it was: it may find something.

        Raises:
            LeaseLost: Somebody else has the lease by now.
        """
        with self._database.write() as session:
            if not holds(session, build_id, lease):
                raise lost(build_id)
            rows = session.scalars(
                select(JournalRow).where(
                    JournalRow.build_id == build_id,
                    JournalRow.generation == generation,
                    JournalRow.step.in_(steps),
                    JournalRow.state != StepState.UNDONE,
                )
            )
            for row in rows:
                row.state = StepState.PENDING
                row.epoch += 1
                row.attempts = 0
                row.error = None

    def epochs(self, build_id: str, generation: int) -> dict[int, int]:
        """How often each step was undone in a generation."""
        with self._database.read() as session:
            rows = session.execute(
                select(JournalRow.step, JournalRow.epoch).where(
                    JournalRow.build_id == build_id, JournalRow.generation == generation
                )
            )
            return {row.step: row.epoch for row in rows}

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

    def rebooted(self, build_id: str, generation: int, step: int | None = None) -> bool:
        """Whether a step (or any) of a generation was last worked on before this host's boot."""
        return any(
            entry.boot_id != boot_id()
            for entry in self.entries(build_id, generation)
            if step in (None, entry.step)
        )


def _entry(row: JournalRow) -> Entry:
    return Entry.model_validate({name: getattr(row, name) for name in Entry.model_fields})

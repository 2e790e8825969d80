"""Leases: at most one run works on a build at a time."""

from __future__ import annotations

import os
import uuid
from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from blocks.errors import Conflict, LeaseLost
from blocks.state.database import Database
from blocks.state.machine import boot_id, process_started
from blocks.state.tables import LeaseRow
from blocks.state.tables.base import now

#: A lease that was not renewed for so long is free, wherever its holder was.
LEASE_S = 60.0


def holds(session: Session, build_id: str, token: str | None) -> bool:
    """Whether a token is that of a build's lease; asked in the transaction that it is to fence.

    None, of who works without a lease, fences nothing.
    """
    held = select(LeaseRow.token).where(LeaseRow.build_id == build_id)
    return token is None or session.scalar(held) == token


def lost(build_id: str) -> LeaseLost:
    """What is told to a run that has lost its lease."""
    return LeaseLost(f"another run has taken over the build {build_id}")


class Leases:
    """Leases on builds.

    Args:
        database: Where they are kept.
        host: Who asks.
        lease_s: How long one lives without being renewed.
    """

    def __init__(self, database: Database, host: str, lease_s: float = LEASE_S) -> None:
        self._database = database
        self._host = host
        self.lease_s = lease_s

    def acquire(self, build_id: str, purpose: str) -> str:
        """Take a build's lease.

        Args:
            build_id: Which build.
            purpose: What for, in a word: `create`, `resume`, `rollback`, `delete`.

        Returns:
            A token that proves it to `renew` and `release`.

        Raises:
            Conflict: Somebody else holds it and is alive.
        """
        with self._database.write() as session:
            row = session.get(LeaseRow, build_id)
            if row is not None and self._alive(row):
                raise Conflict(
                    f"another run ({row.purpose}, process {row.pid} on {row.host}) "
                    "is working on it",
                    hint="wait for it to end, or stop it",
                )
            if row is None:
                row = LeaseRow(build_id=build_id)
                session.add(row)
            row.token = str(uuid.uuid4())
            row.purpose = purpose
            row.host = self._host
            row.pid = os.getpid()
            row.pid_started = process_started(row.pid) or 0
            row.boot_id = boot_id()
            row.expires_at = now() + timedelta(seconds=self.lease_s)
            return row.token

    def renew(self, build_id: str, token: str) -> bool:
        """Keep a lease for another `lease_s` seconds; False where it is lost."""
        with self._database.write() as session:
            row = session.get(LeaseRow, build_id)
            if row is None or row.token != token:
                return False
            row.expires_at = now() + timedelta(seconds=self.lease_s)
            return True

    def require(self, build_id: str, token: str | None) -> None:
        """Check that a lease is still the caller's; None stands for who needs none.

        Raises:
            LeaseLost: Another run has it by now.
        """
        with self._database.read() as session:
            if not holds(session, build_id, token):
                raise lost(build_id)

    def release(self, build_id: str, token: str) -> None:
        """Give a lease back; one that is lost already is fine."""
        with self._database.write() as session:
            row = session.get(LeaseRow, build_id)
            if row is not None and row.token == token:
                session.delete(row)

    def forget_dead(self) -> list[str]:
        """Forget the leases of who is gone: killed after its build's end, before its release.

        One that has only expired may be renewed yet, where its process was stopped for a while.

        Returns:
            The builds whose leases they were.
        """
        with self._database.write() as session:
            dead = [row for row in session.scalars(select(LeaseRow)) if self.is_gone(row)]
            for row in dead:
                session.delete(row)
            return [row.build_id for row in dead]

    def held(self, build_id: str) -> str | None:
        """What a live lease on a build is for; None where there is none."""
        with self._database.read() as session:
            row = session.get(LeaseRow, build_id)
            return row.purpose if row is not None and self._alive(row) else None

    def live(self) -> dict[str, str]:
        """What the live leases are for, by their builds' ids."""
        with self._database.read() as session:
            rows = session.scalars(select(LeaseRow)).all()
        return {row.build_id: row.purpose for row in rows if self._alive(row)}

    def _alive(self, row: LeaseRow) -> bool:
        # On our own host the truth is at hand: no need to wait for a dead one's expiry.
        return row.expires_at > now() and not (row.host == self._host and self.is_gone(row))

    def is_gone(self, row: LeaseRow) -> bool:
        """Whether a lease's holder is gone; one of another host, when it has expired."""
        if row.host != self._host:
            return row.expires_at <= now()
        return row.boot_id != boot_id() or process_started(row.pid) != row.pid_started

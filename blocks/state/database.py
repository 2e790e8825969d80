"""The connection to the state store's database, and its transactions."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from blocks.errors import NO_ROOM_HINT, Conflict, HostFault, NotFound, Transient

#: How long a writer waits for another one, milliseconds.
BUSY_TIMEOUT_MS = 60_000
#: The newest revision of `migrations/`, here so that a quick command needs no Alembic.
REVISION = "0005"


def _prepare(connection: sqlite3.Connection, _record: object) -> None:
    # The sqlite3 module's own transaction handling would begin too late and unasked.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin(connection: Connection) -> None:
    # A writer takes the write lock at once: two that read first and write later could
    # otherwise both believe that the same address is free.
    options = connection.get_execution_options()
    writing = options.get("fifty_write", False)
    if writing:
        # FULL: an intent that was written must survive a loss of power, or it is no intent.
        # It cannot be changed inside of a transaction.
        level = "FULL" if options.get("fifty_durable", True) else "NORMAL"
        connection.exec_driver_sql(f"PRAGMA synchronous={level}")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


class Database:
    """An SQLite database in WAL mode, with reading and writing transactions.

    Args:
        path: The database's file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = f"sqlite:///{path}"
        self._engine = create_engine(self.url)
        event.listen(self._engine, "connect", _prepare)
        event.listen(self._engine, "begin", _begin)
        self._writer = self._engine.execution_options(fifty_write=True)
        self._quick_writer = self._writer.execution_options(fifty_durable=False)

    def require(self) -> None:
        """Check that the store is there.

        Raises:
            NotFound: `fifty init` has not been run.
        """
        if not self.path.exists():
            raise NotFound(f"there is no state store at {self.path}", hint="run `fifty init`")

    def require_current(self) -> None:
        """Check that the store has the tables that this program knows.

        Raises:
            Conflict: It was made by an earlier, or by a later, version of Fifty Steps.
        """
        try:
            with self.read() as session:
                found = session.scalar(text("SELECT version_num FROM alembic_version"))
        except OperationalError as error:
            if "no such table" not in str(error.orig):
                raise
            found = None
        if found != REVISION:
            raise Conflict(
                f"the state store at {self.path} is of revision {found or 'none'}, "
                f"and this is a program for revision {REVISION}",
                hint="`fifty init` brings an earlier one up to date",
            )

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that only reads: a consistent view, never waits for writers."""
        with Session(self._engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Session]:
        """A transaction that writes: alone from its first statement to its commit.

        Args:
            durable: Wait until it is on the disk. Else it survives the process, but a loss
                of power may take it back; the next durable one makes it durable too.

        Raises:
            Transient: Others held the database for longer than `BUSY_TIMEOUT_MS`.
            HostFault: The disk is full.
        """
        try:
            writer = self._writer if durable else self._quick_writer
            with Session(writer, expire_on_commit=False) as session, session.begin():
                yield session
        except OperationalError as error:
            if "locked" in str(error.orig):
                raise Transient("the state store was busy for a minute") from error
            if "is full" in str(error.orig):
                raise HostFault(
                    f"there is no room for the state store {self.path}", hint=NO_ROOM_HINT
                ) from error
            raise

    def connect(self) -> Connection:
        """A raw connection for Alembic."""
        return self._engine.connect()

    def dispose(self) -> None:
        """Close all connections."""
        self._engine.dispose()

"""Prefect's SQLite configuration, with writers that wait for their turn."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from prefect.server.database.configurations import AioSqliteConfiguration
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction


class PatientSqliteConfiguration(AioSqliteConfiguration):
    """A transaction takes SQLite's write lock when it begins, and waits for it.

    Prefect begins most of them as readers. One that then writes, after somebody else has
    written, is told at once that the database is locked, whatever the busy timeout is
    (https://sqlite.org/lang_transaction.html): of 50 requests at once most got 503.
    """

    @asynccontextmanager
    async def begin_transaction(
        self, session: AsyncSession, with_for_update: bool = False
    ) -> AsyncGenerator[AsyncSessionTransaction, None]:
        """Begin a transaction that may write."""
        del with_for_update
        async with super().begin_transaction(session, with_for_update=True) as transaction:
            yield transaction

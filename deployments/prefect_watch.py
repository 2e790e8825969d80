"""What our Prefect server sees to by itself: runs whose process was killed, and their worker too.

Prefect's engine sets a run's state from inside of its process, and `fifty serve` where that
was killed. Where both were (`kill -9`, the kernel's out-of-memory killer), nobody is left to
say so, and the run is Running for ever. Prefect's remedy is an automation that waits for the
run's next heartbeat; but that crashes runs that are alive when it was the server that was away,
or the host that was busy. This server runs on the host of the runs: it can look.

Imports Prefect.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.logging.loggers import get_logger
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.service import settle

#: Seconds between two looks. What is gone in two of them is gone: a run's own worker, where
#: it lives, has told what became of it by then.
LOOK_EVERY_S = 15.0
_PAGE = 200


class Watching:
    """The application, with a watch over its runs as long as it is up.

    Args:
        app: The application.
        host: This host's name, as the runs' processes are recorded with.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        self._host = host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a connection; the watch follows the life of the application."""
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        watch: asyncio.Task[None] | None = None

        async def follow(message: Message) -> None:
            nonlocal watch
            if message["type"] == "lifespan.startup.complete":
                watch = asyncio.create_task(_watch(self._host))
            await send(message)

        try:
            await self._app(scope, receive, follow)
        finally:
            if watch is not None:
                watch.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await watch


async def _watch(host: str) -> None:
    """Look every few seconds, for ever."""
    before: set[UUID] = set()
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        try:
            async with get_client() as client:
                before = await _look(client, host, before)
        except httpx.HTTPError as error:
            # Our own server, busy or about to stop: it is asked again.
            get_logger("fifty.watch").warning("Runs cannot be looked at now: %s", error)


async def _look(client: PrefectClient, host: str, before: set[UUID]) -> set[UUID]:
    """Settle the runs that have no process any more, and had none at the last look.

    Returns:
        Those that have none now.
    """
    gone: set[UUID] = set()
    async for run in _running(client):
        # Somebody may delete a run, or its parent, at any time: it is no more to be told of.
        with contextlib.suppress(ObjectNotFound):
            if not await _is_gone(client, run, host):
                continue
            gone.add(run.id)
            if run.id in before:
                get_logger("fifty.watch").warning("%s: its process is gone", run.name)
                await settle.gone(client, run)
    return gone


async def _running(client: PrefectClient) -> AsyncIterator[FlowRun]:
    """All runs that are at work, as their states say; settling one takes it from the list."""
    wanted = FlowRunFilter(
        state=FlowRunFilterState(
            type=FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.CANCELLING])
        )
    )
    found: list[FlowRun] = []
    while len(found) % _PAGE == 0:
        page = await client.read_flow_runs(
            flow_run_filter=wanted,
            sort=FlowRunSort.START_TIME_ASC,
            limit=_PAGE,
            offset=len(found),
        )
        if not page:
            break
        found += page
    for run in found:
        yield run


async def _is_gone(client: PrefectClient, run: FlowRun, host: str) -> bool:
    """Whether a run was this host's, and its process is gone; a subflow has its parent's."""
    if run.infrastructure_pid:
        return settle.has_no_process(run, host)
    if run.parent_task_run_id is None:
        return False
    parent = (await client.read_task_run(run.parent_task_run_id)).flow_run_id
    return parent is not None and await _is_gone(client, await client.read_flow_run(parent), host)

"""What `fifty serve` does, from its start to its end. Imports Prefect."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import Callable

from prefect.client.orchestration import PrefectClient

from blocks.settings import Settings
from deployments import registration
from deployments.service import record
from deployments.service.worker import FiftyWorker

RECONCILE = "reconcile/fifty"
#: Whose warnings an operator should see; a run's own log is in the Prefect UI.
_LOGGERS = ("prefect.workers", "prefect.flow_runs.worker", "prefect.fifty")


def serve(settings: Settings, serving: record.Serving, tell: Callable[[str], None]) -> None:
    """Serve this home until SIGTERM or SIGINT, and come to rest.

    Args:
        settings: Whose home, and which Prefect server.
        serving: Who we are, as it was written down.
        tell: Told in a line what happens.
    """
    for line in registration.register(settings):
        tell(f"registered {line}")
    for name in _LOGGERS:
        logging.getLogger(name).addHandler(_Lines(tell))
    # The command line leaves the collector off, for commands that last a second. What is here
    # by now stays for good, and need not be looked through each time.
    gc.collect()
    gc.freeze()
    gc.enable()
    asyncio.run(_serve(settings, serving, tell))
    tell("stopped")


async def _serve(settings: Settings, serving: record.Serving, tell: Callable[[str], None]) -> None:
    worker = FiftyWorker(settings.host, tell)

    def stop(number: signal.Signals) -> None:
        tell(f"{number.name}: no new runs; waiting for those that run to come to rest")
        worker.stop()

    async def begin(client: PrefectClient) -> None:
        await _reconcile(client)
        record.note_ready(settings.home, serving)
        tell(f"ready: runs of the work pool {worker.type} start on {settings.host}")

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    await worker.serve(begin)


async def _reconcile(client: PrefectClient) -> None:
    """Have what stopped while nobody served brought to an end: by a run, for all to see."""
    deployment = await client.read_deployment_by_name(RECONCILE)
    await client.create_flow_run_from_deployment(
        deployment.id, parameters={"request": {"dispatch": True}}, tags=["start-up"]
    )


class _Lines(logging.Handler):
    """Warnings, a line each."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell

    def emit(self, entry: logging.LogRecord) -> None:
        self._tell(f"{entry.levelname.lower()}: {entry.getMessage()}")

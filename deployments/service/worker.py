"""A Prefect worker whose flow runs start from a process that has everything imported."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import anyio
import anyio.abc
import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.workers.base import BaseVariables, BaseWorker

from deployments.served_flows import WORK_POOL
from deployments.service import settle
from deployments.service.children import Children
from deployments.service.configuration import FiftyJobConfiguration, FiftyWorkerResult
from deployments.service.news import listen

#: Seconds between two questions for runs, where the server's events bring none.
ASK_EVERY_S = 2.0
#: Seconds between two looks for cancels that no event told of.
_LOOK_EVERY_S = 5.0
#: Seconds between two looks for runs that nobody carries out any more.
_SETTLE_EVERY_S = 60.0


class FiftyWorker(BaseWorker[FiftyJobConfiguration, BaseVariables, FiftyWorkerResult]):
    """Runs the flows of Fifty Steps on this host, each in a process of its own.

    A run that is cancelled gets SIGTERM once, and all the time that it needs to roll back.

    Args:
        host: This host's name; the worker is named so, and a work queue is.
        tell: Told in a line what happens.
    """

    type = WORK_POOL
    job_configuration = FiftyJobConfiguration

    def __init__(self, host: str, tell: Callable[[str], None]) -> None:
        super().__init__(
            work_pool_name=WORK_POOL,
            name=host,
            # A run is due when it is due, and not before.
            prefetch_seconds=0,
            create_pool_if_not_found=False,
        )
        self._host = host
        self._tell = tell
        self.children = Children()
        self._something_waits = asyncio.Event()
        self._stop = asyncio.Event()
        self._at_work: dict[UUID, asyncio.Event] = {}
        self._cancelled: set[UUID] = set()

    async def serve(self, begin: Callable[[PrefectClient], Awaitable[None]]) -> None:
        """Run what the work pool's queues hold, until `stop` is called and all is at rest.

        Args:
            begin: Awaited when all is ready for runs.
        """
        try:
            await self.children.start()
            async with self:
                await settle.forsaken(self.client, self._host, self._at_work, self._tell)
                await begin(self.client)
                async with anyio.create_task_group() as loops:
                    loops.start_soon(self._ask)
                    loops.start_soon(self._every, _LOOK_EVERY_S, self._look_for_cancels)
                    loops.start_soon(self._every, _SETTLE_EVERY_S, self._settle)
                    loops.start_soon(
                        self._every, self.heartbeat_interval_seconds, self.sync_with_backend
                    )
                    loops.start_soon(
                        listen, self.work_pool.id, self._something_waits.set, self._cancel
                    )
                    await self._stop.wait()
                    loops.cancel_scope.cancel()
                told = self.children.end_all()
                if told:
                    self._tell(f"stopping {told} run(s); their builds can be gone on with")
                # Leaving the worker's context waits for all runs.
        finally:
            await self.children.stop()

    def stop(self) -> None:
        """Take no more runs, and have those that run come to rest."""
        self._stop.set()

    async def run(
        self,
        flow_run: FlowRun,
        configuration: FiftyJobConfiguration,
        task_status: anyio.abc.TaskStatus[int] | None = None,
    ) -> FiftyWorkerResult:
        """Carry out one flow run in a child of the forkserver, and wait for its end."""
        report: Any = task_status or anyio.TASK_STATUS_IGNORED
        run = str(flow_run.id)
        over = self._at_work[flow_run.id] = asyncio.Event()
        try:
            if self._stop.is_set() or flow_run.id in self._cancelled:
                report.started(None)
                await settle.not_begun(self.client, flow_run.id)
                return FiftyWorkerResult(identifier=run, status_code=0)
            entrypoint, env = configuration.entrypoint, configuration.environment()
            child = await self.children.run(run, entrypoint, env)
            identifier = settle.identifier(self._host, await child.started)
            report.started(identifier)  # as the run's infrastructure_pid
            self._tell(f"{configuration.flow} {flow_run.name}: process {child.started.result()}")
            if self._stop.is_set() or flow_run.id in self._cancelled:
                self.children.end(run)
            code = await child.ended
            self._tell(await settle.ended(self.client, flow_run.id, code))
            return FiftyWorkerResult(identifier=identifier, status_code=code)
        finally:
            del self._at_work[flow_run.id]
            self._cancelled.discard(flow_run.id)
            over.set()
            # There may be a place in a queue with a limit now.
            self._something_waits.set()

    async def _propose_pending_state(self, flow_run: FlowRun) -> bool:
        """Take a run over; one that was retried at once, when its last process is over.

        Its state is final before its process has sent its last logs and ended. Until then it
        stays scheduled: two processes of one run could not be told apart, nor their ends.
        """
        if before := self._at_work.get(flow_run.id):
            await before.wait()
        return await super()._propose_pending_state(flow_run)

    async def _ask(self) -> None:
        """Ask for runs that are due: when told that there are some, and every few seconds."""
        while True:
            self._something_waits.clear()
            await self._try(self.get_and_submit_flow_runs)
            with anyio.move_on_after(ASK_EVERY_S):
                await self._something_waits.wait()

    async def _every(self, seconds: float, do: Callable[[], Awaitable[object]]) -> None:
        while True:
            await anyio.sleep(seconds)
            await self._try(do)

    async def _try(self, do: Callable[[], Awaitable[object]]) -> None:
        """Do it; a server that does not answer now will be asked again."""
        try:
            await do()
        except httpx.HTTPError as error:
            self._tell(f"the Prefect server does not answer: {error!r}")
            await anyio.sleep(ASK_EVERY_S)

    def _cancel(self, flow_run_id: UUID) -> None:
        """End a run that we carry out, or are about to; what is not ours, `_settle` sees."""
        self._cancelled.add(flow_run_id)
        if self.children.end(str(flow_run_id)):
            self._tell(f"run {flow_run_id}: cancelled; it rolls back")

    async def _look_for_cancels(self) -> None:
        if self._at_work:
            for flow_run_id in await settle.cancelling(self.client, self._at_work):
                self._cancel(flow_run_id)

    async def _settle(self) -> None:
        await settle.forsaken(self.client, self._host, self._at_work, self._tell)
        self._cancelled.intersection_update(self._at_work)

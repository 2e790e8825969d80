"""What the worker knows of one flow run's job."""

from __future__ import annotations

from uuid import UUID

from prefect.client.schemas.objects import Flow, FlowRun, WorkPool
from prefect.client.schemas.responses import DeploymentResponse
from prefect.workers.base import BaseJobConfiguration, BaseWorkerResult
from pydantic import PrivateAttr


class FiftyJobConfiguration(BaseJobConfiguration):
    """Prefect's own, with the deployment's entrypoint; `env` reaches the run's process."""

    _entrypoint: str = PrivateAttr(default="")
    _flow: str = PrivateAttr(default="")

    @property
    def entrypoint(self) -> str:
        """The flow, as the deployment names it; nothing for a run without a deployment."""
        return self._entrypoint

    @property
    def flow(self) -> str:
        """The flow's name."""
        return self._flow

    def prepare_for_flow_run(
        self,
        flow_run: FlowRun,
        deployment: DeploymentResponse | None = None,
        flow: Flow | None = None,
        work_pool: WorkPool | None = None,
        worker_name: str | None = None,
        worker_id: UUID | None = None,
    ) -> None:
        """Take over what Prefect's base class takes over, and the entrypoint."""
        super().prepare_for_flow_run(
            flow_run, deployment, flow, work_pool, worker_name, worker_id=worker_id
        )
        self._entrypoint = (deployment.entrypoint or "") if deployment else ""
        self._flow = flow.name if flow else ""

    def environment(self) -> dict[str, str]:
        """The variables that are set."""
        return {name: value for name, value in self.env.items() if value is not None}


class FiftyWorkerResult(BaseWorkerResult):
    """How a flow run's process ended."""

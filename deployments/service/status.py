"""What the service does now, as `fifty serve --status` tells it. Imports Prefect."""

from __future__ import annotations

from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.types._datetime import now

from blocks.settings import Settings
from blocks.state import StateStore, StepState
from deployments import catalogue
from deployments.served_flows import BUILDS, WORK_POOL

_POOL = WorkPoolFilter(name=WorkPoolFilterName(any_=[WORK_POOL]))
_AT_WORK = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]


def look(settings: Settings, store: StateStore) -> dict[str, Any]:
    """What runs, what waits, and what is to come.

    Returns:
        `running` (name, state, since, step), `queued`, `builds` (the limit of builds at a
        time), `schedules` (deployment, on, next).
    """
    with get_client(sync_client=True) as client:
        steps = _steps(settings, store)
        return {
            "running": [_run(run, steps) for run in _runs(client, _AT_WORK)],
            "queued": _queued(client),
            "builds": _limit(client),
            "schedules": _schedules(client),
        }


def _runs(client: SyncPrefectClient, states: list[StateType]) -> list[FlowRun]:
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=states))
        ),
        work_pool_filter=_POOL,
        sort=FlowRunSort.EXPECTED_START_TIME_ASC,
    )


def _queued(client: SyncPrefectClient) -> int:
    """How many runs are due, and wait for their turn."""
    due = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
        expected_start_time=FlowRunFilterExpectedStartTime(before_=now("UTC")),
    )
    wanted = {"flow_runs": due.model_dump(mode="json"), "work_pools": _POOL.model_dump(mode="json")}
    return int(client.request("POST", "/flow_runs/count", json=wanted).json())


def _run(run: FlowRun, steps: dict[str, str]) -> dict[str, Any]:
    return {
        "id": str(run.id),
        "name": run.name,
        "state": run.state_name,
        "since": run.start_time.isoformat() if run.start_time else None,
        "step": steps.get(str(run.id)),
    }


def _steps(settings: Settings, store: StateStore) -> dict[str, str]:
    """The step that each flow run with a build is at."""
    found = {}
    for build in store.builds.unfinished():
        titles = {
            step.number: step.title for step in catalogue.read(settings.home, build.catalogue)
        }
        entries = store.journal.entries(build.id, build.generation)
        at = [one for one in entries if one.state in (StepState.RUNNING, StepState.UNDOING)]
        if build.flow_run_id and at:
            step = at[-1].step
            undo = "undo " if at[-1].state is StepState.UNDOING else ""
            found[build.flow_run_id] = f"{undo}{step:02d} · {titles.get(step, '')}"
    return found


def _limit(client: SyncPrefectClient) -> int | None:
    try:
        return client.read_work_queue_by_name(BUILDS, work_pool_name=WORK_POOL).concurrency_limit
    except ObjectNotFound:
        return None


def _schedules(client: SyncPrefectClient) -> list[dict[str, Any]]:
    """Each deployment that has a schedule, and when it runs next."""
    coming: dict[Any, str] = {}
    for run in _runs(client, [StateType.SCHEDULED]):
        if run.auto_scheduled and run.expected_start_time:
            coming.setdefault(run.deployment_id, run.expected_start_time.isoformat())
    found = [
        {
            "deployment": f"{client.read_flow(one.flow_id).name}/{one.name}",
            "active": not one.paused and any(schedule.active for schedule in one.schedules),
            "next": coming.get(one.id),
        }
        for one in client.read_deployments(work_pool_filter=_POOL)
        if one.schedules
    ]
    return sorted(found, key=lambda one: str(one["deployment"]))

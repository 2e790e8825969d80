"""Seeing to it that every flow run of ours has a state that is true.

Prefect's engine sets a run's state from inside the run's process. What is left is here:
the process was killed, it never got to the flow, or the worker that had it is gone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.states import Cancelled, Crashed, Scheduled

from blocks.settings import settings
from deployments import processes
from deployments.served_flows import WORK_POOL

#: A run that was handed to a worker so long ago, and has no process, has no worker either.
_HANDED_OVER = timedelta(seconds=60)
_GONE = "its process is gone"
_IN_TIME = "cancelled before it began"


def identifier(host: str, pid: int) -> str:
    """What is recorded of a run's process: enough to tell it from all others, for ever."""
    process = processes.identify(pid)
    return f"{host}:{pid}:{process.start}:{process.boot}" if process else f"{host}:{pid}:0:gone"


def has_ended(recorded: str, host: str) -> bool:
    """Whether the process of an identifier was one of this host, and is gone."""
    named, pid, start, boot = recorded.rsplit(":", 3)
    if processes.is_alive(processes.Process(pid=int(pid), start=int(start), boot=boot)):
        return False
    # The kernel that ran it is running: so it was here, whatever the host was called then.
    return boot == processes.boot_id() or named == host


def note_process(_flow: object, flow_run: FlowRun, _state: object) -> None:
    """A hook for runs that have no worker: their process is recorded as a worker does."""
    with get_client(sync_client=True) as client:
        process = identifier(settings().host, os.getpid())
        client.update_flow_run(flow_run.id, infrastructure_pid=process)


def cancelled_in_time(state: State[Any]) -> State[Any]:
    """The end of a run that was to be cancelled before it began: Prefect's engine leaves it so."""
    end: State[Any] = Cancelled(message=_IN_TIME)
    flow_run_id = state.state_details.flow_run_id
    if flow_run_id is not None:
        end.state_details.flow_run_id = flow_run_id
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(flow_run_id, end, force=True)
    return end


async def cancelling(client: PrefectClient, among: Collection[UUID]) -> list[UUID]:
    """Those of these runs that are to be cancelled."""
    found = await client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            id=FlowRunFilterId(any_=list(among)),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.CANCELLING])),
        )
    )
    return [flow_run.id for flow_run in found]


async def not_begun(client: PrefectClient, flow_run_id: UUID) -> None:
    """Cancel a run that was not begun, if that is asked for; else let it wait again."""
    state = (await client.read_flow_run(flow_run_id)).state
    if state is not None and state.is_cancelling():
        await _set(client, flow_run_id, Cancelled(message=_IN_TIME))
    elif state is not None and state.is_pending():
        words = "given back: its worker was stopped before the run began"
        await _set(client, flow_run_id, Scheduled(message=words))


async def ended(client: PrefectClient, flow_run_id: UUID, code: int) -> str:
    """See to the state of a run whose process has ended.

    Args:
        client: Prefect's.
        flow_run_id: The run.
        code: The process's exit code.

    Returns:
        The run's name, and how it stands.
    """
    flow_run = await client.read_flow_run(flow_run_id)
    state = flow_run.state
    if state is not None and not state.is_final() and not state.is_scheduled():
        state = _true_state(state, f"its process ended with {code}" if code else "")
        await _set(client, flow_run_id, state)
    words = [flow_run.name, state.name if state else None, first_line(state) if state else None]
    return ": ".join(word for word in words if word)


async def forsaken(
    client: PrefectClient,
    host: str,
    at_work: Collection[UUID],
    tell: Callable[[str], None],
) -> None:
    """Settle the runs of this host that nobody carries out any more.

    Args:
        client: Prefect's.
        host: This host's name, as its worker is named.
        at_work: The runs that this worker carries out; it may change meanwhile.
        tell: Told in a line what was found.
    """
    before = set(at_work)
    found = await client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(
                type=FlowRunFilterStateType(
                    any_=[StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
                )
            )
        ),
        work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[WORK_POOL])),
    )
    for flow_run in found:
        if flow_run.id in before or flow_run.id in at_work or not _is_forsaken(flow_run, host):
            continue
        state = flow_run.state
        if state is None:
            continue
        if state.is_pending():
            new: State[Any] = Scheduled(message="given out again: the worker that had it is gone")
        else:
            new = _true_state(state, _GONE)
        tell(f"{flow_run.name}: was {state.name}; {new.message}")
        await _set(client, flow_run.id, new)


async def gone(client: PrefectClient, flow_run: FlowRun) -> None:
    """Settle a run that was at work, and whose process is gone; the worker's too, perhaps."""
    if flow_run.state is not None:
        await _set(client, flow_run.id, _true_state(flow_run.state, _GONE))


def has_no_process(flow_run: FlowRun, host: str) -> bool:
    """Whether a run's process is recorded, was one of this host, and is gone."""
    recorded = flow_run.infrastructure_pid or ""
    return _is_ours(recorded) and has_ended(recorded, host)


def _is_forsaken(flow_run: FlowRun, host: str) -> bool:
    if _is_ours(flow_run.infrastructure_pid or ""):
        return has_no_process(flow_run, host)
    since = flow_run.state.timestamp if flow_run.state else None
    return since is not None and datetime.now(UTC) - since > _HANDED_OVER


def _is_ours(recorded: str) -> bool:
    """Whether this is an identifier as we write them; Prefect's own workers write others."""
    return recorded.count(":") >= 3


def _true_state(state: State[Any], why: str) -> State[Any]:
    """The state of a run whose process is gone without having set one."""
    if state.is_cancelling() and not why:
        return Cancelled(message=_IN_TIME)
    if state.is_cancelling():
        return Cancelled(message=f"cancelled; {why}; what is left is undone by reconcile")
    return Crashed(message=why or "its process ended, and did not say how")


async def _set(client: PrefectClient, flow_run_id: UUID, state: State[Any]) -> None:
    await client.set_flow_run_state(flow_run_id, state, force=True)


def first_line(state: State[Any]) -> str:
    """What a state's message says, in a line."""
    return (state.message or "").partition("\n")[0]

"""What a child of the forkserver does: one flow run, by Prefect's own engine, and end."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.context import SettingsContext, get_settings_context
from prefect.engine import handle_engine_signals
from prefect.exceptions import Abort, TerminationSignal
from prefect.flow_engine import run_flow
from prefect.flows import Flow
from prefect.logging.loggers import flow_run_logger
from prefect.settings import Settings
from prefect.states import Cancelled, Scheduled

from blocks.errors import FiftyError
from blocks.settings import settings
from deployments.service.admission import check_parameters, find_flow, refuse
from tasks.cancelling import cancel_requested

#: Seconds that a child has to send its last logs and events, before SIGALRM ends it.
_LAST_WORDS_S = 20


class Told(BaseException):
    """SIGTERM, at a time when Prefect's engine has no use for it any more."""


def carry_out(order: Mapping[str, Any]) -> int:
    """Run a flow run to its end.

    SIGTERM is blocked when this is called, and stays so until the flow itself begins.

    Args:
        order: `run`, the flow run's id; `entrypoint`; `env`, the job's variables.

    Returns:
        The exit code: 0 where the run's state is settled; Prefect's engine may exit with 1.
    """
    signal.signal(signal.SIGTERM, _told)
    try:
        with _environment(order["env"]), get_client(sync_client=True) as client:
            flow_run = client.read_flow_run(UUID(order["run"]))
            try:
                flow = find_flow(order["entrypoint"])
                check_parameters(flow, flow_run.parameters)
            except FiftyError as error:
                refuse(client, flow_run.id, error)
            else:
                _run(client, flow, flow_run)
    except Told:
        pass  # the engine has set the run's state, and then given the signal on
    finally:
        # What is left is to send the last logs; without a server that could take for ever.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.alarm(_LAST_WORDS_S)
    return 0


def _told(_number: int, _frame: FrameType | None) -> None:
    raise Told


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """The job's variables, also where they are settings of Prefect's or ours."""
    changed = any(os.environ.get(name) != value for name, value in variables.items()
                  if name.startswith("PREFECT_") and not name.startswith("PREFECT__"))  # fmt: skip
    os.environ.update(variables)
    settings.cache_clear()
    if not changed:
        yield
        return
    with SettingsContext(profile=get_settings_context().profile, settings=Settings()):
        yield


def _run(client: SyncPrefectClient, flow: Flow[..., Any], flow_run: FlowRun) -> None:
    """Run it in this thread, the main one: signals are delivered to it."""
    flow.fn = _stoppable(flow.fn, lambda: _give_back(client, flow_run))
    with handle_engine_signals(flow_run.id):
        run_flow(flow, flow_run=flow_run, error_logger=flow_run_logger(flow_run).logger)


def _stoppable(function: Callable[..., Any], give_back: Callable[[], None]) -> Callable[..., Any]:
    """A flow that takes SIGTERM only while it runs, and ends Cancelled when that is a cancel.

    Args:
        function: The flow's own.
        give_back: Called where SIGTERM came, for another reason, before the flow began.
    """

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the flow
        begun = False
        try:
            # What came since the fork is delivered here, and raised.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            begun = True
            return function(*args, **kwargs)
        except TerminationSignal:
            if cancel_requested():
                return Cancelled(message="cancelled " + ("and at rest" if begun else "in time"))
            if not begun:
                give_back()
            raise

    return wrapped


def _give_back(client: SyncPrefectClient, flow_run: FlowRun) -> None:
    """Let the run wait for the next worker: nothing of it was done.

    Raises:
        Abort: So that Prefect's engine leaves the state as it is.
    """
    state: State[Any] = Scheduled(message="given back: its worker was stopped before the run began")
    client.set_flow_run_state(flow_run.id, state, force=True)
    raise Abort("given back")

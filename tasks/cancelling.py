"""SIGTERM and Cancel: what they mean for a build.

SIGTERM says that this process must end, not that the VM is unwanted: the build stays as it
is, for a later run to go on with. Prefect's Cancel says that it is: the build is undone.
Prefect's worker gives a Cancel to a run that it started as a SIGTERM; a run that has no
worker, as those of the command line, looks for it by itself.
"""

from __future__ import annotations

import contextvars
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from httpx import HTTPError
from prefect import get_run_logger
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound, TerminationSignal
from prefect.states import Cancelling

from blocks.errors import Conflict
from blocks.state import Build, StateStore

_LOOK_EVERY_S = 2.0
_LOOK_FOR_LEASE_S = 0.2
_AGAIN_S = 0.05
#: A run stops between two steps at the latest; the longest step builds an image.
_STOP_S = 600.0


def stays_resumable(error: BaseException) -> bool:
    """Whether the build is to be left as it is, for a later run to go on with."""
    return isinstance(error, TerminationSignal) and not cancel_requested()


def cancel_requested() -> bool:
    """Whether Prefect was asked to cancel the flow run that we are in, or one above it."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return False
    with get_client(sync_client=True) as client:
        return _is_cancelled(client, context.flow_run.id)


def was_cancelled(flow_run_id: str | None) -> bool:
    """Whether a run was, or is to be, cancelled; False for one that Prefect has forgotten."""
    if flow_run_id is None:
        return False
    with get_client(sync_client=True) as client:
        try:
            return _is_cancelled(client, UUID(flow_run_id))
        except ObjectNotFound:
            return False


def _is_cancelled(client: SyncPrefectClient, flow_run_id: UUID) -> bool:
    run = client.read_flow_run(flow_run_id)
    if run.state is not None and (run.state.is_cancelling() or run.state.is_cancelled()):
        return True
    if run.parent_task_run_id is None:
        return False
    above = client.read_task_run(run.parent_task_run_id).flow_run_id
    return above is not None and _is_cancelled(client, above)


def stop_run(store: StateStore, build: Build, purpose: str) -> str:
    """Stop the run that works on a build, as Prefect's Cancel does, and take its lease.

    Others may want it at the same time: whoever comes too late waits for that one, too.

    Args:
        store: The state store.
        build: The build.
        purpose: What its lease is wanted for, in a word.

    Returns:
        The lease's token.

    Raises:
        Conflict: The other run does not stop.
    """
    deadline = time.monotonic() + _STOP_S
    cancelled = None
    while (token := _free_lease(store, build, purpose)) is None:
        at_work = store.builds.get(build.id)
        working = at_work.flow_run_id
        if time.monotonic() > deadline:
            raise Conflict(
                f"another run ({store.leases.held(build.id)}) is working on {build.name}",
                hint="wait for it to end, or stop it",
            )
        # An undo comes to its end by itself; a build is asked to go back.
        if at_work.state in ("building", "restoring") and working not in (None, cancelled):
            get_run_logger().info("stopping the run %s, which builds %s", working, build.name)
            with get_client(sync_client=True) as client:
                client.set_flow_run_state(UUID(working), Cancelling())
            cancelled = working
        time.sleep(_LOOK_FOR_LEASE_S)
    return token


def _free_lease(store: StateStore, build: Build, purpose: str) -> str | None:
    """Take a build's lease where it is free; its token."""
    # Asked first: to try to take it is a write, and it is tried five times a second.
    if store.leases.held(build.id) is not None:
        return None
    try:
        return store.leases.acquire(build.id, purpose)
    except Conflict:  # taken since we looked
        return None


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let no SIGTERM break into an undo: it takes seconds, and whoever sent it can wait."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # A function, where SIG_IGN would be inherited by dnsmasq and the like.
    before = signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def never_lost() -> Iterator[None]:
    """Have a SIGTERM come again that Python could not raise.

    Where it comes while an object is freed, what its handler raises is printed, and the program
    goes on (`sys.unraisablehook`): a Cancel, of which there is only one, would not be heard.
    """
    before = sys.unraisablehook
    again: list[threading.Timer] = []

    def look(ignored: sys.UnraisableHookArgs) -> None:
        if not isinstance(ignored.exc_value, TerminationSignal):
            before(ignored)
            return
        # Not at once: it would be raised in here, to no avail.
        timer = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), signal.SIGTERM))
        again.append(timer)
        timer.start()

    sys.unraisablehook = look
    try:
        yield
    finally:
        sys.unraisablehook = before
        for timer in again:
            timer.cancel()


@contextmanager
def cancellable() -> Iterator[None]:
    """Have this run hear of a Cancel, also where no worker tells it, and of every SIGTERM."""
    with never_lost(), _watched():
        yield


@contextmanager
def _watched() -> Iterator[None]:
    """Look for a Cancel of this run, where no worker does that: it is given on as a SIGTERM."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or context.flow_run.deployment_id is not None:
        yield
        return
    over = threading.Event()
    watcher = threading.Thread(
        target=contextvars.copy_context().run, args=(_watch, over), name="cancel", daemon=True
    )
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _watch(over: threading.Event) -> None:
    while not over.wait(_LOOK_EVERY_S):
        try:
            wanted = cancel_requested()
        except HTTPError as error:
            # It is looked again soon; without the server nobody can ask for a cancel anyway.
            get_run_logger().debug("whether to cancel is not known now: %s", error)
            continue
        if wanted and not over.is_set():
            os.kill(os.getpid(), signal.SIGTERM)
            return

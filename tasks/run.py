"""Running a build: its steps forward, and its undos backward.

Whatever stops a build, it ends complete, undone, kept as it is (`on_failure: keep`), or in
NeedsAttention; a process that is killed leaves a build that `resume`, `rollback` or
`reconcile` brings to one of these.
"""

from __future__ import annotations

import contextvars
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

from blocks.errors import (
    Conflict,
    Denied,
    FiftyError,
    HostFault,
    InvalidRequest,
    LeaseLost,
    NeedsAttention,
    NotFound,
    QuotaExceeded,
    Transient,
    Unsupported,
    fault_of_host,
)
from blocks.settings import settings
from blocks.state import StepState
from tasks import faults
from tasks.leasing import holding
from tasks.step import Catalogue, Step, Subject, enter, error_dict

#: What a caller is told about a request, as opposed to what fails while it is carried out.
REFUSALS = (InvalidRequest, NotFound, Conflict, QuotaExceeded, Denied, Unsupported)
_LOOK_FOR_SIGNALS_S = 1.0


Plan = Callable[["Runner"], None]


class Stopped(FiftyError):
    """Another branch of the same build failed: this one goes no further."""


class Runner:
    """Runs the steps of one build.

    Args:
        catalogue: Whose steps.
        subject: The build.
    """

    def __init__(self, catalogue: Catalogue, subject: Subject) -> None:
        self._catalogue = catalogue
        self.subject = subject
        self._stop = threading.Event()
        self._epochs: Mapping[int, int] | None = None

    def __call__(self, step: Step) -> Any:  # noqa: ANN401 - a step's own result
        """Run one step, or take its checkpoint.

        Raises:
            Stopped: Another branch failed in the meantime.
            HostFault: It could not be done here, for want of room or the like, or however
                often it was tried: another host may be able to.
        """
        if self._stop.is_set():
            raise Stopped("another branch of this build failed")
        subject = self.subject
        if self._epochs is None:
            # Only an undo changes them, and only ours: we hold the lease.
            self._epochs = subject.store.journal.epochs(subject.build_id, subject.generation)
        epoch = self._epochs.get(step.number, 0)
        drop_torn_checkpoint(step.key(subject.build_id, subject.generation, epoch))
        try:
            return step.task(subject.build_id, subject.generation, epoch)
        except (OSError, Transient) as error:
            # The API's steps are no host's: what they cannot reach is Prefect's server.
            fault = fault_of_host(error, tries=step.retries + 1) if step.stage != "A" else None
            if fault is None:
                raise
            raise fault from error

    def gather(self, *steps: Step) -> None:
        """Run steps that only look, all of them, and answer once for all they refuse.

        Raises:
            FiftyError: The refusal where there is one; several of them in one
                InvalidRequest (or their common class) with a line each.
        """
        refusals: list[FiftyError] = []
        for step in steps:
            try:
                self(step)
            except REFUSALS as error:
                refusals.append(error)
        if refusals:
            raise combined(refusals)

    def concurrently(self, *branches: Sequence[Step]) -> None:
        """Run branches at once, each one's steps in order; join them.

        Raises:
            BaseException: The first that a branch raised. All branches have come to rest
                by then: no step is running when an undo begins.
        """

        def follow(branch: Sequence[Step]) -> None:
            faults.hang_until(self._stop)
            try:
                for step in branch:
                    self(step)
            except BaseException:
                self._stop.set()
                raise

        with ThreadPoolExecutor(len(branches), thread_name_prefix="branch") as pool:
            try:
                futures = [
                    pool.submit(contextvars.copy_context().run, follow, branch)
                    for branch in branches
                ]
                errors = [_end_of(future) for future in futures]
            except BaseException:
                # Cancel or SIGTERM reaches the main thread while the branches work.
                self._stop.set()
                raise
        self._stop.clear()
        real = [error for error in errors if error and not isinstance(error, Stopped)]
        if real:
            raise real[0]

    def on_hosts(
        self, hosts: Sequence[str], first: int, choose: Callable[[str], None], plan: Plan
    ) -> None:
        """Run a plan on the first host; where that host is at fault, on the next one.

        Args:
            hosts: The selected host, then the alternates.
            first: The plan's first step; what a faulty host got is undone from there.
            choose: Records the host that is tried next.
            plan: What to run.

        Raises:
            HostFault: The last host failed too; the details hold the fault of each.
            NeedsAttention: A host could not be cleaned up.
        """
        faults: list[str] = []
        for host in hosts:
            choose(host)
            try:
                plan(self)
            except HostFault as fault:
                faults.append(f"{host}: {fault}")
                if host == hosts[-1]:
                    if len(faults) == 1:
                        raise
                    raise HostFault(
                        f"{len(faults)} hosts failed", hint=fault.hint, details=faults
                    ) from fault
                left = self.unwind(first)
                if left:
                    raise NeedsAttention(f"{host} could not be cleaned up", details=left) from fault
            else:
                return

    @property
    def changed(self) -> bool:
        """Whether any step that changes something was begun in this generation."""
        entries = self.subject.store.journal.entries(self.subject.build_id, self.subject.generation)
        return any(self._catalogue.steps[entry.step].undo for entry in entries)

    def unwind(self, first: int = 1) -> list[str]:
        """Undo, in reverse, every step from `first` on that may have had an effect.

        Returns:
            What could not be undone, a line each; empty when nothing is left.

        Raises:
            LeaseLost: Another run works on the build by now.
        """
        self._stop.clear()
        self._epochs = None
        left = []
        subject = self.subject
        store = subject.store
        entries = store.journal.entries(subject.build_id, subject.generation)
        for entry in reversed(entries):
            if entry.step < first or entry.state is StepState.UNDONE:
                continue
            step = self._catalogue.steps[entry.step]
            if step.undo_task is None:
                at = (subject.build_id, subject.generation, entry.step)
                store.journal.close(*at, StepState.UNDONE, lease=subject.lease_token)
                continue
            try:
                step.undo_task(subject.build_id, subject.generation)
            except LeaseLost:
                raise
            except Exception as error:  # noqa: BLE001 - told, kept, and tried again later
                made = "; ".join(change.what for change in entry.changes)
                what = f" (it had: {made})" if made else ""
                left.append(f"step {step.label}: {error_dict(error)['message']}{what}")
        return left


def drop_torn_checkpoint(key: str) -> None:
    """Remove a checkpoint that a kill left half written: the step is done once more.

    Prefect writes a result into its file directly; without this, the torn file would
    fail the step for ever.
    """
    file = settings().checkpoints / key
    try:
        json.loads(file.read_bytes())
    except FileNotFoundError:
        return
    except ValueError:
        file.unlink(missing_ok=True)


def _end_of(branch: Future[None]) -> BaseException | None:
    """Wait for a branch's end; what it raised.

    A signal goes to any one thread of a process (signal(7)), mostly to the main one, and
    Python handles it in the main one, once that wakes up: so it does, now and then.
    """
    while not wait([branch], timeout=_LOOK_FOR_SIGNALS_S).done:
        pass
    return branch.exception()


def combined(refusals: Sequence[FiftyError]) -> FiftyError:
    """One error for several refusals of one request."""
    if len(refusals) == 1:
        return refusals[0]
    kinds = {type(error) for error in refusals}
    details = [line for error in refusals for line in (error.details or (error.message,))]
    hints = list(dict.fromkeys(error.hint for error in refusals))
    kind = kinds.pop() if len(kinds) == 1 else InvalidRequest
    return kind(
        f"{len(details)} things are wrong with this request",
        hint="; ".join(hints),
        details=details,
    )


@contextmanager
def lease(subject: Subject, purpose: str, token: str | None = None) -> Iterator[str]:
    """Hold the build's lease, and work on it; see `holding`.

    Args:
        subject: The build.
        purpose: What for, in a word.
        token: The lease's, where the caller has taken it already.

    Yields:
        The lease's token.

    Raises:
        Conflict: Another run holds it.
    """
    leases = subject.store.leases
    held = token or leases.acquire(subject.build_id, purpose)
    with holding(leases, subject.build_id, held):
        enter(subject)
        yield held

"""The engine: what a step is, and what is guaranteed about every one of them.

A step is a plain function under the `step` decorator of its catalogue's stage. The
decorator makes a Prefect task of it that

- writes its intent into the journal before it touches anything, and how it ended after;
- is retried, with back-off and jitter, for transient errors only;
- has its result persisted as JSON the moment it is finished, under a key of build,
  generation, step and epoch, so that a resumed run shows it as Cached;
- collects what it changed on the host, in words and as commands.

The function's parameters are filled in by name from the running `Subject` (the build of a
VM, of a network): a step asks for `ports` or `fabric` by saying so in its signature, and
never for what an earlier step returned.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from prefect import Task, get_run_logger, task
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext

from blocks.changes import Change, collecting
from blocks.errors import FiftyError, LeaseLost, fault_of_host
from blocks.state import StateStore, StepState
from tasks import faults
from tasks.reading import reading

Function = TypeVar("Function", bound=Callable[..., Any])

#: A quarter of a minute in all: so long a libvirtd that is restarted may take to be back.
RETRY_DELAYS_S = [0.2, 1.0, 4.0, 10.0]
RETRIES = len(RETRY_DELAYS_S)
JITTER = 0.5
#: Any error of an undo is worth another try; a transient one is worth one more than this.
UNDO_RETRIES = 2


class Subject(Protocol):
    """What steps work on: one build, with everything that its steps can ask for."""

    @property
    def store(self) -> StateStore:
        """The state store."""
        ...

    @property
    def build_id(self) -> str:
        """The build's id."""
        ...

    @property
    def generation(self) -> int:
        """The build's generation."""
        ...

    #: The lease of the run that works on the build.
    lease_token: str | None


_subject: ContextVar[Subject] = ContextVar("fifty_subject")


def enter(subject: Subject) -> None:
    """Make `subject` the one that steps called from here on work on."""
    _subject.set(subject)


@dataclass(frozen=True)
class Step:
    """A step of a catalogue.

    Attributes:
        number: Its number; the order of the catalogue.
        title: What it does, as the UI shows it.
        stage: The stage's letter (A, S, C, N, V, H, G).
        do: The function; `undo` takes back what it did, None where it changes nothing.
        retries: How often a transient error is tried again.
    """

    number: int
    title: str
    stage: str
    do: Callable[..., Any]
    undo: Callable[..., None] | None
    retries: int
    task: Task[..., Any]
    undo_task: Task[..., None] | None

    def key(self, build_id: str, generation: int, epoch: int) -> str:
        """The name of the step's checkpoint."""
        return checkpoint_key(build_id, generation, self.number, epoch)

    @property
    def label(self) -> str:
        """Number and title, as the UI shows it."""
        return f"{self.number:02d} · {self.title}"

    @property
    def doc(self) -> str:
        """What the step does, and what OpenStack does here."""
        return inspect.getdoc(self.do) or ""


class Catalogue:
    """The steps of one kind of build, derived from their decorators.

    Args:
        name: `vm`, `network`: the kind of build.
        subject: The class whose attributes steps may ask for.
    """

    def __init__(self, name: str, subject: type) -> None:
        self.name = name
        self._subject = subject
        self._offers = {*dir(subject), *inspect.get_annotations(subject)}
        self._steps: dict[int, Step] = {}

    @property
    def steps(self) -> Mapping[int, Step]:
        """The steps by number, in order."""
        return dict(sorted(self._steps.items()))

    def stage(self, letter: str) -> Callable[..., Callable[[Function], Step]]:
        """The `step` decorator of one stage.

        Returns:
            `step(number, title, undo=None, retries=RETRIES)`.
        """

        def step(
            number: int,
            title: str,
            undo: Callable[..., None] | None = None,
            retries: int = RETRIES,
        ) -> Callable[[Function], Step]:
            def decorate(function: Function) -> Step:
                return self._register(number, title, letter, function, undo, retries)

            return decorate

        return step

    def _register(
        self,
        number: int,
        title: str,
        stage: str,
        do: Callable[..., Any],
        undo: Callable[..., None] | None,
        retries: int,
    ) -> Step:
        if number in self._steps:
            raise ValueError(f"{self.name} has two steps {number}")
        for function in filter(None, (do, undo)):
            for name in inspect.signature(function).parameters:
                if name not in self._offers:
                    raise TypeError(
                        f"step {number} asks for {name!r}, which {self._subject.__name__} has not"
                    )
        step = Step(
            number=number,
            title=title,
            stage=stage,
            do=do,
            undo=undo,
            retries=retries,
            task=_do_task(number, title, do, retries),
            undo_task=_undo_task(number, title, undo) if undo else None,
        )
        self._steps[number] = step
        return step


def checkpoint_key(build_id: str, generation: int, step: int, epoch: int) -> str:
    """The name of a checkpoint: by what is built, never by code or arguments.

    So new code does not invalidate the checkpoints of a build that is under way.
    """
    return f"{build_id}-{generation}-{step}-{epoch}"


def _arguments(function: Callable[..., Any], subject: Subject) -> dict[str, Any]:
    reader = reading(subject)
    return {name: getattr(reader, name) for name in inspect.signature(function).parameters}


def _worth_a_retry(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    error = state.result(raise_on_failure=False)
    return isinstance(error, FiftyError) and error.transient


def _worth_another_undo(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    if isinstance(state.result(raise_on_failure=False), LeaseLost):
        return False
    return run.run_count <= UNDO_RETRIES or _worth_a_retry(task, run, state)


def _attempt() -> int:
    context = TaskRunContext.get()
    return context.task_run.run_count if context else 1


def error_dict(error: BaseException) -> dict[str, Any]:
    """An error as the journal keeps it: `FiftyError.as_dict`, and the like for others."""
    known = fault_of_host(error) if isinstance(error, OSError) else error
    if isinstance(known, FiftyError):
        return known.as_dict()
    if not isinstance(error, Exception):
        # Prefect's TerminationSignal, or KeyboardInterrupt: nobody's mistake.
        message = "by a cancel, by Ctrl-C or by SIGTERM"
        return {"error": "Stopped", "message": message, "hint": "", "details": []}
    return {
        "error": type(error).__name__,
        "message": str(error) or type(error).__name__,
        "hint": "this is a mistake of Fifty Steps; the task run's log has the traceback",
        "details": [],
    }


def _tell(changes: list[Change]) -> None:
    for change in changes:
        get_run_logger().info("%s\n  # %s", change.what, change.command)


def _do_task(number: int, title: str, do: Callable[..., Any], retries: int) -> Task[..., Any]:
    def body(build_id: str, generation: int, epoch: int) -> Any:  # noqa: ANN401 - a step's own result
        subject = _subject.get()
        journal = subject.store.journal
        journal.intend(build_id, generation, number, subject.store.host, subject.lease_token)
        with collecting() as changes:
            try:
                faults.strike(number, "before", attempt=_attempt())
                result = do(**_arguments(do, subject))
                faults.strike(number, "after", attempt=_attempt())
            except BaseException as error:
                _tell(changes)
                end = (StepState.FAILED, changes, error_dict(error))
                journal.close(build_id, generation, number, *end, lease=subject.lease_token)
                raise
        _tell(changes)
        at = (build_id, generation, number, StepState.DONE)
        journal.close(*at, changes, lease=subject.lease_token)
        return result

    def key(_context: TaskRunContext, parameters: dict[str, Any]) -> str:
        return checkpoint_key(step=number, **parameters)

    body.__name__ = do.__name__
    return task(
        name=f"{number:02d} {title}",
        task_run_name=f"{number:02d} · {title}",
        description=inspect.getdoc(do),
        retries=retries,
        retry_delay_seconds=RETRY_DELAYS_S[:retries],
        retry_jitter_factor=JITTER,
        retry_condition_fn=_worth_a_retry,
        persist_result=True,
        result_serializer="json",
        cache_key_fn=key,
    )(body)


def _undo_task(number: int, title: str, undo: Callable[..., None]) -> Task[..., None]:
    def body(build_id: str, generation: int) -> None:
        subject = _subject.get()
        journal = subject.store.journal
        journal.intend_undo(build_id, generation, number, subject.store.host, subject.lease_token)
        with collecting() as changes:
            try:
                faults.strike(number, "before", attempt=_attempt(), undo=True)
                undo(**_arguments(undo, subject))
                faults.strike(number, "after", attempt=_attempt(), undo=True)
            except BaseException as error:
                _tell(changes)
                end = (StepState.UNDO_FAILED, changes, error_dict(error))
                journal.close(build_id, generation, number, *end, lease=subject.lease_token)
                raise
        _tell(changes)
        at = (build_id, generation, number, StepState.UNDONE)
        journal.close(*at, changes, lease=subject.lease_token)

    body.__name__ = f"undo_{number:02d}"
    return task(
        name=f"undo {number:02d} {title}",
        task_run_name=f"undo {number:02d} · {title}",
        description=inspect.getdoc(undo),
        retries=UNDO_RETRIES + 1,
        retry_delay_seconds=RETRY_DELAYS_S[: UNDO_RETRIES + 1],
        retry_jitter_factor=JITTER,
        retry_condition_fn=_worth_another_undo,
        persist_result=False,
    )(body)

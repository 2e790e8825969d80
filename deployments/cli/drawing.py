"""Drawing a build while it runs, from its journal in the state store.

The flow has the main thread, so that signals reach it; a thread of ours looks at the
journal and draws. So `create`, `resume`, `rollback` and `delete` draw with the same code.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from types import TracebackType
from typing import Protocol

from sqlalchemy.exc import SQLAlchemyError

from blocks.settings import settings
from blocks.state import Build, Entry, StateStore, StepState
from deployments import catalogue
from deployments.catalogue import StepInfo
from deployments.cli import output
from deployments.cli.documents import elapsed
from deployments.cli.glyphs import GLYPHS

_LOOK_EVERY_S = 0.1
#: States in which nothing is going on.
ENDS = frozenset({StepState.DONE, StepState.FAILED, StepState.UNDONE, StepState.UNDO_FAILED})
_BEFORE_A_FAILURE = frozenset({StepState.PENDING, StepState.RUNNING})
_AFTER_A_FAILURE = frozenset({StepState.UNDOING, StepState.UNDONE})


class View(Protocol):
    """What draws."""

    def show(
        self, build: Build | None, entries: Sequence[Entry], steps: Sequence[StepInfo]
    ) -> None:
        """Draw how it stands now; no build means that there is none yet."""
        ...

    def close(self) -> None:
        """Leave the last drawing standing."""
        ...


class Nothing:
    """For `--json`: draws nothing."""

    def show(
        self, build: Build | None, entries: Sequence[Entry], steps: Sequence[StepInfo]
    ) -> None:
        """Draw nothing."""

    def close(self) -> None:
        """Nothing to close."""


class Lines:
    """For a pipe: a line for each step that has ended since the drawing began."""

    def __init__(self) -> None:
        self._told: dict[tuple[int, int], tuple[StepState, datetime | None]] | None = None

    def show(
        self, build: Build | None, entries: Sequence[Entry], steps: Sequence[StepInfo]
    ) -> None:
        """Tell what has ended since the last time."""
        titles = {step.number: step.title for step in steps}
        nothing_to_undo = {step.number for step in steps if not step.undo}
        now = {
            (entry.generation, entry.step): (entry.state, entry.finished_at) for entry in entries
        }
        # What an earlier run of the same build did is not told again.
        before = now if self._told is None else self._told
        self._told = now
        for entry in sorted(entries, key=lambda entry: str(entry.finished_at)):
            key = (entry.generation, entry.step)
            if before.get(key) == now[key]:
                continue
            title = titles.get(entry.step, "")
            seen = before.get(key, (StepState.RUNNING, None))[0]
            if entry.error and entry.state in _AFTER_A_FAILURE and seen in _BEFORE_A_FAILURE:
                # It failed, and its undo began, between two looks.
                output.note(line(entry.model_copy(update={"state": StepState.FAILED}), title))
            if entry.state not in ENDS:
                continue
            if entry.state is StepState.UNDONE and entry.step in nothing_to_undo:
                continue
            output.note(line(entry, title))

    def close(self) -> None:
        """Nothing to close."""


def line(entry: Entry, title: str) -> str:
    """A step that has ended, as one line."""
    words = "" if entry.state is StepState.DONE else f"  {entry.state.value}"
    if entry.attempts > 1:
        words += f"  {entry.attempts} attempts"
    if entry.state is StepState.DONE:
        words += f"  {output.duration(elapsed(entry))}"
    elif entry.error and entry.state is not StepState.UNDONE:
        words += f": {output.plain(entry.error.get('message'))}"
    return f"{GLYPHS[entry.state.value]} {entry.step:02d} · {output.plain(title)}{words}"


class Drawing:
    """Draws a build until the `with` block ends.

    Args:
        store: Where the journal is.
        find: The build, or None as long as there is none.
        view: What draws.
    """

    def __init__(self, store: StateStore, find: Callable[[], Build | None], view: View) -> None:
        self._store = store
        self._find = find
        self._view = view
        self._ended = threading.Event()
        self._trouble: str | None = None
        self._steps: Sequence[StepInfo] = ()
        self._thread = threading.Thread(target=self._keep, name="drawing", daemon=True)

    def __enter__(self) -> Drawing:
        """Begin: what has been done before is noted, and not told again."""
        if isinstance(self._view, Nothing):
            return self
        self._look()
        self._thread.start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """End with the last state."""
        if isinstance(self._view, Nothing):
            return
        self._ended.set()
        self._thread.join()
        if self._trouble is None:
            self._look()
        self._view.close()
        if self._trouble is not None:
            output.note(f"(the drawing stopped: {output.plain(self._trouble)})")

    def _keep(self) -> None:
        while not self._ended.wait(_LOOK_EVERY_S):
            try:
                self._look()
            except SQLAlchemyError as error:
                # The build goes on without its drawing; told at the end.
                self._trouble = str(error).splitlines()[0]
                return

    def _look(self) -> None:
        build = self._find()
        if not self._steps:
            # Written by the flow's start where it was not there.
            self._steps = catalogue.read(settings().home, "vm")
        entries = self._store.journal.entries(build.id, build.generation) if build else []
        self._view.show(build, entries, self._steps)


def view_for(*, as_json: bool, title: str) -> View:
    """The drawing that fits where standard error leads."""
    if as_json:
        return Nothing()
    if not sys.stderr.isatty():
        return Lines()
    from deployments.cli.live import Live

    return Live(title, time.monotonic)

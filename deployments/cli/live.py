"""The fifty steps on a terminal, drawn anew whenever something has changed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from itertools import groupby

from rich import live
from rich.console import Console, Group
from rich.text import Text

from blocks.state import Build, Entry, StepState
from deployments.catalogue import StepInfo
from deployments.cli import output
from deployments.cli.documents import elapsed
from deployments.cli.glyphs import GLYPHS, STAGES

_STYLES = {
    "pending": "dim",
    "running": "bold cyan",
    "done": "green",
    "failed": "bold red",
    "undoing": "bold yellow",
    "undone": "yellow",
    "undo_failed": "bold red",
}
_ACTIVE = frozenset({"running", "undoing"})
_LOUD = frozenset({"running", "undoing", "failed", "undo_failed"})
#: A running step's seconds are drawn this often, also where nothing else has changed.
_REDRAW_EVERY_S = 0.25
#: Lines that are not the steps': the title, and one that the cursor stands in.
_MARGIN = 3


class Row:
    """A step as drawn."""

    def __init__(self, step: StepInfo, entry: Entry | None) -> None:
        self.step = step
        self.entry = entry
        self.state = entry.state.value if entry else StepState.PENDING.value

    def text(self) -> Text:
        """Glyph, number, title, attempts, duration, and what went wrong."""
        style = _STYLES[self.state]
        text = Text(no_wrap=True, overflow="ellipsis")
        text.append(f"   {GLYPHS[self.state]} {self.step.number:02d} ", style)
        title = output.plain(self.step.title)
        text.append(f"{title:<38}", style if self.state in _LOUD else _title_style(self.state))
        if self.entry is None:
            return text
        text.append(f" {self._duration():>9}", "dim")
        if self.entry.attempts > 1:
            text.append(f"  {self.entry.attempts} attempts", "yellow")
        if self.state not in ("done", "running"):
            text.append(f"  {self.state.replace('_', ' ')}", style)
        if self.entry.error and self.state not in ("done", "running"):
            text.append(f"  {output.plain(self.entry.error.get('message'))}", "red")
        return text

    def _duration(self) -> str:
        entry = self.entry
        if entry is None or entry.started_at is None:
            return ""
        if self.state == "running":
            return output.duration((datetime.now(UTC) - entry.started_at).total_seconds())
        return output.duration(elapsed(entry))


def _title_style(state: str) -> str:
    return "dim" if state == "pending" else ""


class Live:
    """Draws the steps by stage; where the terminal is low, what is going on comes first.

    Args:
        title: What is being done ("Creating hello").
        clock: Seconds, for the redrawing's pace.
    """

    def __init__(self, title: str, clock: Callable[[], float]) -> None:
        self._title = output.plain(title)
        self._clock = clock
        self._console = Console(file=sys.stderr, highlight=False, markup=False)
        self._live = live.Live(
            console=self._console, auto_refresh=False, vertical_overflow="crop", transient=False
        )
        self._drawn: object = None
        self._drawn_at = 0.0
        self._began = datetime.now(UTC)
        self._live.start()

    def show(
        self, build: Build | None, entries: Sequence[Entry], steps: Sequence[StepInfo]
    ) -> None:
        """Draw, if there is something new or a step is running."""
        signs = [(entry.step, entry.state, entry.attempts, entry.finished_at) for entry in entries]
        due = self._clock() - self._drawn_at > _REDRAW_EVERY_S
        if signs == self._drawn and not due:
            return
        self._drawn, self._drawn_at = signs, self._clock()
        journal = {entry.step: entry for entry in entries}
        rows = [Row(step, journal.get(step.number)) for step in steps]
        lines = [self._head(build, rows), *self._body(rows)]
        self._live.update(Group(*lines), refresh=True)

    def close(self) -> None:
        """Leave the last drawing standing."""
        self._live.stop()

    def _head(self, build: Build | None, rows: Sequence[Row]) -> Text:
        done = sum(row.state == "done" for row in rows)
        spent = output.duration((datetime.now(UTC) - self._began).total_seconds())
        text = Text(no_wrap=True, overflow="ellipsis")
        text.append(self._title, "bold")
        if build is None:
            text.append("  getting ready", "dim")
        elif rows:
            text.append(f"  {done} of {len(rows)} steps", "green")
        if build is not None and build.generation > 1:
            text.append(f"  (build {build.generation} of it)", "dim")
        text.append(f"  {spent}", "dim")
        return text

    def _body(self, rows: Sequence[Row]) -> Iterable[Text]:
        stages = [(stage, list(group)) for stage, group in groupby(rows, lambda r: r.step.stage)]
        shown = chosen(rows, self._console.height - _MARGIN - len(stages))
        for stage, group in stages:
            yield _stage_line(stage, group)
            for row in group:
                if row.step.number in shown:
                    yield row.text()


def chosen(rows: Sequence[Row], room: int) -> set[int]:
    """The numbers of the steps to draw where there is room for so many.

    All of them if they fit; else what runs or failed, then the stages that those are in,
    the steps nearest to what runs first.
    """
    if len(rows) <= room:
        return {row.step.number for row in rows}
    loud = [row for row in rows if row.state in _LOUD]
    stages = {row.step.stage for row in loud}
    near = [
        row
        for row in rows
        if row.step.stage in stages and row.state not in _LOUD and row.entry is not None
    ]
    near.sort(key=lambda row: str(row.entry and row.entry.started_at), reverse=True)
    waiting = [row for row in rows if row.step.stage in stages and row.entry is None]
    order = [*loud, *near, *waiting]
    return {row.step.number for row in order[: max(room, 0)]}


def _stage_line(stage: str, rows: Sequence[Row]) -> Text:
    done = sum(row.state == "done" for row in rows)
    states = {row.state for row in rows}
    if states & {"failed", "undo_failed"}:
        style = "bold red"
    elif states & _ACTIVE:
        style = "bold cyan"
    elif states == {"done"}:
        style = "green"
    else:
        style = "dim" if states == {"pending"} else "yellow"
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(f" {stage}  {STAGES.get(stage, ''):<11}", style)
    text.append(f" {done:>2} of {len(rows)}", "dim")
    undone = sum(row.state == "undone" for row in rows)
    if undone:
        text.append(f", {undone} undone", "yellow")
    return text

"""What a run tells at its end: one Markdown artifact, and a progress artifact on the way."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Sequence
from uuid import UUID

from prefect.artifacts import create_markdown_artifact, update_progress_artifact

from blocks.errors import NotFound
from blocks.state import Build, Entry, StateStore, StepState
from tasks.step import Catalogue

PROGRESS_EVERY_S = 1.0
_GLYPHS = {
    StepState.RUNNING: "⏳ running",
    StepState.DONE: "✅ done",
    StepState.FAILED: "❌ failed",
    StepState.UNDOING: "⏳ undoing",
    StepState.UNDONE: "↩️ undone",
    StepState.UNDO_FAILED: "❌ undo failed",
}


def cell(text: str) -> str:
    """A text that stays inside its cell of a Markdown table, whatever it holds."""
    for char in "\\`*_{}[]<>|#":
        text = text.replace(char, f"\\{char}")
    return " ".join(text.split())


def code(text: str) -> str:
    """A text as inline code inside a table's cell."""
    return "`" + " ".join(text.split()).replace("`", "'").replace("|", "\\|") + "`"


class Progress:
    """Keeps the run's progress artifact up to date, off the build's own path."""

    def __init__(self, catalogue: Catalogue, store: StateStore, build_id: str) -> None:
        self._catalogue = catalogue
        self._store = store
        self._build_id = build_id
        self._ended = threading.Event()
        context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=context.run, args=(self._keep,), name="progress", daemon=True
        )

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _keep(self) -> None:
        told = ""
        while True:
            over = self._ended.wait(PROGRESS_EVERY_S)
            build = self._store.builds.get(self._build_id)
            artifact = build.plan.get("progress_artifact")
            words, percent = self._standing(build)
            if artifact and words != told:
                update_progress_artifact(UUID(artifact), progress=percent, description=words)
                told = words
            if over:
                return

    def _standing(self, build: Build) -> tuple[str, float]:
        steps = self._catalogue.steps
        entries = self._store.journal.entries(build.id, build.generation)
        done = sum(entry.state is StepState.DONE for entry in entries)
        busy = [steps[e.step].label for e in entries if e.state is StepState.RUNNING]
        words = f"{build.name}: {done} of {len(steps)} steps"
        return f"{words}; now {', '.join(busy)}" if busy else words, 100.0 * done / len(steps)


def publish_summary(catalogue: Catalogue, store: StateStore, build: Build) -> None:
    """Write the summary artifact of a build: its steps, its clocks, and its failure."""
    create_markdown_artifact(
        key=f"{catalogue.name}-{build.name}-summary".lower().replace("_", "-").replace(".", "-"),
        markdown=render(catalogue, store, build),
        description=f"{build.name}: {build.state}",
    )


def render(catalogue: Catalogue, store: StateStore, build: Build) -> str:
    """The summary as Markdown."""
    entries = store.journal.entries(build.id, build.generation)
    parts = [f"# {cell(build.name)}: {cell(build.state)}", *_fault(build)]
    if catalogue.name == "vm":
        parts += _clocks(store, build)
    parts += [
        f"Generation {build.generation}, request `{cell(build.request_id)}`, id `{build.id}`.",
        "",
        "| # | stage | step | state | seconds | attempts | what changed |",
        "|--:|---|---|---|--:|--:|---|",
        *_rows(catalogue, entries),
    ]
    return "\n".join(parts)


def _fault(build: Build) -> list[str]:
    if not build.fault:
        return []
    fault = build.fault
    lines = [f"**{cell(fault['error'])}**: {cell(fault['message'])}", ""]
    if fault.get("step"):
        lines[0] = f"Stopped at step {fault['step']}. " + lines[0]
    lines += [f"- {cell(detail)}" for detail in fault.get("details", [])]
    if fault.get("hint"):
        lines += ["", f"What to do: {cell(fault['hint'])}"]
    return [*lines, ""]


def _clocks(store: StateStore, build: Build) -> list[str]:
    try:
        clocks = store.instances.get(build.id).clocks
    except NotFound:
        return []
    shown = [
        f"{words} {value:.1f} s"
        for words, value in (
            ("running", clocks.running_s),
            ("booted", clocks.booted_s),
            ("login", clocks.login_s),
        )
        if value is not None
    ]
    return [f"From acceptance to: {', '.join(shown)}.", ""] if shown else []


def _rows(catalogue: Catalogue, entries: Sequence[Entry]) -> list[str]:
    known = {entry.step: entry for entry in entries}
    rows = []
    for number, step in catalogue.steps.items():
        entry = known.get(number)
        if entry is None:
            rows.append(f"| {number} | {step.stage} | {step.title} | pending | | | |")
            continue
        seconds = ""
        if entry.started_at and entry.finished_at and entry.state is StepState.DONE:
            seconds = f"{(entry.finished_at - entry.started_at).total_seconds():.3f}"
        changes = "<br>".join(
            f"{cell(change.what)} {code(change.command)}" for change in entry.changes
        )
        rows.append(
            f"| {number} | {step.stage} | {step.title} | {_GLYPHS[entry.state]} "
            f"| {seconds} | {entry.attempts} | {changes} |"
        )
    return rows

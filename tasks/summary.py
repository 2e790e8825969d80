"""What a run tells at its end: one Markdown artifact, and a progress artifact on the way."""

from __future__ import annotations

import contextvars
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from prefect.artifacts import create_markdown_artifact, update_progress_artifact

from blocks.errors import NotFound
from blocks.state import Build, Entry, StateStore, StepState
from tasks.step import Catalogue
from tasks.tags import RunTags
from tasks.topology_artifact import around, publish_topology

PROGRESS_EVERY_S = 1.0
_STATES = {
    StepState.PENDING: "· to be done again",
    StepState.RUNNING: "▶ running",
    StepState.DONE: "✔ done",
    StepState.FAILED: "✘ failed",
    StepState.UNDOING: "◀ undoing",
    StepState.UNDONE: "↶ undone",
    StepState.UNDO_FAILED: "‼ undo failed",
}
#: How a build stands, for people; the others' names say it.
_STANDING = {
    "kept": "stopped, and kept as it is",
    "undone": "undone, nothing of it is left on the host",
    "refused": "refused, nothing was changed",
    "needs_attention": "needs attention",
    "restoring": "not brought back to its host yet",
}
#: What can be done next about a VM, by who looks at the run.
_NEXT = {
    "kept": "Retry of this run, or a run of `resume-vm`, goes on at the step that failed; "
    "`rollback-vm` undoes everything.",
    "undone": "Retry of this run builds it anew; `delete-vm` removes its record.",
    "lost": "A run of `start-vm` tries to bring it back; `delete-vm` removes it.",
    "needs_attention": "A run of `rollback-vm` tries the failed undos again.",
}
#: The UI does not wrap a table's cells: a longer text pushes its column out of sight.
_CELL_LENGTH = 30


def cell(text: str) -> str:
    """A text that stays inside its cell of a Markdown table, whatever it holds."""
    for char in "\\`*_{}[]<>|#":
        text = text.replace(char, f"\\{char}")
    return " ".join(text.split())


def shortened(text: str, length: int = _CELL_LENGTH) -> str:
    """A text that is no longer than a table has room for."""
    return text if len(text) <= length else f"{text[: length - 1].rstrip()}…"


def fenced(lines: Sequence[str]) -> list[str]:
    """Lines as a block of code, which ends where they end, whatever they hold."""
    flat = [" ".join(line.split()) for line in lines]
    longest = max((len(run) for line in flat for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}sh", *flat, fence]


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
        tags = RunTags()
        while True:
            over = self._ended.wait(PROGRESS_EVERY_S)
            build = self._store.builds.get(self._build_id)
            tags.tell(build)
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


def refusal_text(fault: Mapping[str, Any]) -> str:
    """What was refused, why, and what to do about it, as Markdown."""
    lines = [f"# {cell(fault['error'])}", "", cell(fault["message"]), ""]
    lines += [f"- {cell(detail)}" for detail in fault.get("details", [])]
    if fault.get("hint"):
        lines += ["", f"What to do: {cell(fault['hint'])}"]
    return "\n".join(lines)


def publish_refusal(fault: Mapping[str, Any]) -> None:
    """Write the artifact of a request that was refused before there was a build of it."""
    create_markdown_artifact(
        key="refusal", markdown=refusal_text(fault), description=str(fault["message"])
    )


def publish_summary(catalogue: Catalogue, store: StateStore, build: Build) -> None:
    """Write the summary artifact of a build: its steps, its clocks, and its failure.

    A network also changes the picture of its tenant's networks.
    """
    create_markdown_artifact(
        key=re.sub("[^a-z0-9]+", "-", f"{catalogue.name}-{build.name}-summary".lower()),
        markdown=render(catalogue, store, build),
        description=f"{build.name}: {_STANDING.get(build.state, build.state)}",
    )
    if catalogue.name == "network" and build.tenant_id is not None:
        publish_topology(store, build.tenant_id)


def render(catalogue: Catalogue, store: StateStore, build: Build) -> str:
    """The summary as Markdown: how it ended, the clocks, the steps, and what they changed."""
    entries = store.journal.entries(build.id, build.generation)
    standing = _STANDING.get(build.state, build.state)
    parts = [f"# {cell(build.name)}: {cell(standing)}", "", *_fault(catalogue, build)]
    if catalogue.name == "vm":
        known = "lost" if build.plan.get("restored") and build.state == "kept" else build.state
        parts += [_NEXT[known], ""] if known in _NEXT else []
        parts += _clocks(store, build)
    if catalogue.name == "network" and build.state == "complete":
        # It may have been deleted since.
        drawn = [network for network in store.networks.list() if network.id == build.id]
        parts += [line for network in drawn for line in around(store, network)]
    parts += [
        f"Generation {build.generation}, request {cell(build.request_id)}, id {build.id}.",
        "",
        "| step | state | seconds | attempts | what changed |",
        "|---|---|--:|--:|---|",
        *_rows(catalogue, entries, (build.fault or {}).get("step")),
        "",
        *_changes(catalogue, entries),
    ]
    return "\n".join(parts)


def _fault(catalogue: Catalogue, build: Build) -> list[str]:
    if not build.fault:
        return []
    fault = build.fault
    step = catalogue.steps.get(fault.get("step") or 0)
    stopped = f"Stopped at step {step.label}. " if step else ""
    lines = [f"{stopped}**{cell(fault['error'])}**: {cell(fault['message'])}", ""]
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
        (words, f"{value:.1f} s")
        for words, value in (
            ("running", clocks.running_s),
            ("booted", clocks.booted_s),
            ("login", clocks.login_s),
        )
        if value is not None
    ]
    if not shown:
        return []
    names, values = zip(*shown, strict=True)
    return [
        f"| from acceptance to | {' | '.join(names)} |",
        "|---|" + "--:|" * len(names),
        f"| time | {' | '.join(values)} |",
        "",
    ]


def _rows(catalogue: Catalogue, entries: Sequence[Entry], failed: int | None) -> list[str]:
    known = {entry.step: entry for entry in entries}
    rows = []
    for number, step in catalogue.steps.items():
        entry = known.get(number)
        if entry is None:
            rows.append(f"| {step.label} | · | | | |")
            continue
        state = _STATES[entry.state]
        if entry.state is StepState.UNDONE and step.undo is None:
            state = _STATES[StepState.FAILED] if number == failed else "nothing to undo"
        rows.append(
            f"| {step.label} | {state} | {_seconds(entry)} | {entry.attempts} "
            f"| {_in_short(entry)} |"
        )
    return rows


def _seconds(entry: Entry) -> str:
    """How long a step took; of one that was undone only the undo's end is known."""
    ended = entry.state in (StepState.DONE, StepState.FAILED)
    if not (ended and entry.started_at and entry.finished_at):
        return ""
    return f"{(entry.finished_at - entry.started_at).total_seconds():.3f}"


def _in_short(entry: Entry) -> str:
    """What a step changed, or what went wrong with it, as far as a table's cell holds it."""
    if entry.state in (StepState.FAILED, StepState.UNDO_FAILED) and entry.error:
        return cell(shortened(str(entry.error.get("message", ""))))
    if not entry.changes:
        return ""
    more = f" (+ {len(entry.changes) - 1})" if len(entry.changes) > 1 else ""
    return cell(shortened(entry.changes[0].what, _CELL_LENGTH - len(more)) + more)


def _changes(catalogue: Catalogue, entries: Sequence[Entry]) -> list[str]:
    """All that was changed, in words and as the commands that a person would have typed."""
    lines = []
    for entry in entries:
        if entry.changes:
            told = [
                line
                for change in entry.changes
                for line in (f"# {' '.join(change.what.split())}", *change.command.splitlines())
            ]
            lines += [f"**{catalogue.steps[entry.step].label}**", "", *fenced(told), ""]
    return ["## What changed, as commands", "", *lines] if lines else []

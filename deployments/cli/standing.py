"""How a build stands that is not complete: where it stopped, what it has made, what next.

From the state store alone: what was made is what the steps wrote into the journal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from blocks.errors import NotFound
from blocks.settings import settings
from blocks.state import Build, Entry, StateStore, StepState
from blocks.state.living import UNDER_WAY
from deployments import catalogue

#: What the commands of `what_next` do.
NEXT = {
    "resume": "go on where it stopped",
    "rollback": "undo it",
    "start": "start it; `fifty reconcile` does so, too",
    "delete": "delete it to its end",
}
_NEXT: Mapping[str, tuple[str, ...]] = {
    "building": ("resume", "rollback"),
    "kept": ("resume", "rollback"),
    "needs_attention": ("rollback",),
    "undoing": ("rollback",),
    "undone": ("delete",),
    "deleting": ("delete",),
    "restoring": ("start", "delete"),
}
_OPEN = (StepState.RUNNING, StepState.UNDOING)
_UNKNOWN = "(it was under way: what it did since it began is not written down)"


def what_next(build: Build) -> dict[str, str]:
    """The commands that make sense now, by what they do."""
    state = build.state
    if state == "kept" and build.plan.get("restored"):
        state = "restoring"  # it was complete, and could not be brought back
    return {command: f"fifty vm {command} {build.name}" for command in _NEXT.get(state, ())}


def standing_of(store: StateStore, build_id: str) -> dict[str, Any] | None:
    """The same, by the build's id; None where there is no such build."""
    try:
        return standing(store, store.builds.get(build_id))
    except NotFound:
        return None


def standing(store: StateStore, build: Build) -> dict[str, Any] | None:
    """How a build stands; None where it is complete, or nothing of it is left.

    Returns:
        `state` (running, stopped, kept, needs_attention), `words`, `step` and `step_title`
        (where it stopped), `run` (what works on it), `made` (what is there by now: of each
        step `step`, `title`, `state`, `what`, `error`) and `next` (the commands).
    """
    if build.state not in (*UNDER_WAY, "kept", "needs_attention"):
        return None
    run = store.leases.held(build.id)
    state = build.state
    if run is not None:
        state = "running"
    elif build.state in UNDER_WAY:
        state = "stopped"
    entries = store.journal.entries(build.id, build.generation)
    there = [entry for entry in entries if entry.state is not StepState.UNDONE]
    known = {step.number: step.title for step in catalogue.read(settings().home, build.catalogue)}
    step = _where(build, there)
    at = f" at step {step} ({known[step]})" if step in known else f" at step {step}" if step else ""
    return {
        "state": state,
        "words": {
            "running": f"A run ({run}) is working on it{at}.",
            "stopped": f"It stopped{at} while {build.state}; no process works on it.",
            "kept": f"It stopped{at}, and is kept as it was.",
            "needs_attention": f"It stopped{at}, and an undo failed.",
        }[state],
        "step": step,
        "step_title": known.get(step or 0),
        "run": run,
        "made": [] if state == "running" else [_made(entry, known) for entry in _told(there)],
        "next": {} if state == "running" else what_next(build),
    }


def _where(build: Build, there: Sequence[Entry]) -> int | None:
    """The step that a build stopped at, or is at."""
    if build.fault and build.fault.get("step"):
        return int(build.fault["step"])
    begun = [entry.step for entry in there if entry.state is not StepState.PENDING]
    running = [entry.step for entry in there if entry.state is StepState.RUNNING]
    if build.state == "restoring":
        # What it was built by is done long since.
        return running[0] if running else None
    # Backward, the one that is being undone is the lowest that was touched.
    undoing = [entry.step for entry in there if entry.state is StepState.UNDOING]
    if undoing:
        return undoing[0]
    return begun[-1] if begun else None


def _told(there: Sequence[Entry]) -> list[Entry]:
    return [entry for entry in there if entry.changes or entry.state in _OPEN]


def _made(entry: Entry, known: Mapping[int, str]) -> dict[str, Any]:
    what = [change.what for change in entry.changes]
    if entry.state in _OPEN:
        what.append(_UNKNOWN)
    if entry.state is StepState.UNDO_FAILED and entry.error:
        what.append(f"its undo failed: {entry.error['message']}")
    return {
        "step": entry.step,
        "title": known.get(entry.step, f"step {entry.step}"),
        "state": entry.state.value,
        "what": what,
        "error": entry.error,
    }

"""What is told after a build that failed: where, what was undone, what is left, what next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blocks.settings import settings
from blocks.state import Build, StateStore, StepState
from deployments import catalogue
from deployments.cli.flow_runs import Done
from deployments.cli.standing import what_next


def failure(
    fault: Mapping[str, Any], store: StateStore, build: Build | None, done: Done | None
) -> dict[str, Any]:
    """A refusal that also says at which step, what was undone, what is left, and what next."""
    document: dict[str, Any] = {"error": "", "message": "", "hint": "", "details": [], **fault}
    if done is not None:
        document |= {"flow_run_id": done.flow_run_id, "url": done.url}
    if build is None:
        return document
    known = {step.number: step for step in catalogue.read(settings().home, build.catalogue)}
    # Those that change nothing have nothing to undo, and leave nothing.
    steps = {
        entry.step: entry.state
        for entry in store.journal.entries(build.id, build.generation)
        if entry.step not in known or known[entry.step].undo
    }
    over = build.state in ("refused", "undone", "deleted")
    failed = known.get(document.get("step") or 0)
    document |= {
        "step_title": failed.title if failed else None,
        "name": build.name,
        "build_id": build.id,
        "build_state": build.state,
        "request_id": build.request_id,
        "undone": [step for step, state in steps.items() if state is StepState.UNDONE],
        "left": []
        if over
        else [step for step, state in steps.items() if state is not StepState.UNDONE],
        "next": what_next(build),
    }
    return document

"""The ends of a build: kept as it is, undone, or in need of attention."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from prefect import get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from blocks.errors import NeedsAttention
from blocks.settings import settings
from blocks.state import Build, StepState
from blocks.world import World
from tasks.cancelling import undisturbed
from tasks.run import Runner
from tasks.step import Catalogue, Subject, error_dict
from tasks.summary import publish_summary


class Buildable(Subject, Protocol):
    """A subject that knows what the ends of its build mean for the thing itself."""

    def settle(self, state: str, fault: dict[str, Any] | None) -> str:
        """Make the thing itself say how its build stands.

        Args:
            state: The build's new state: building, complete, kept, refused, undone,
                needs_attention, deleting, deleted, restoring; or `restored`, which is
                complete once more.
            fault: Why, where there is a reason.

        Returns:
            In words, for the run's state message.
        """
        ...


@dataclass(frozen=True)
class Kind:
    """A kind of thing that is built.

    Attributes:
        word: What it is called in messages and hints: `vm`, `network`.
        undo_again: The command that tries a failed undo again.
    """

    word: str
    catalogue: Catalogue
    subject: Callable[[World, Build], Buildable]
    undo_again: str = "delete"


def message_of(fault: Mapping[str, Any]) -> str:
    """A fault as the message of a run's state; the UI shows its lines as one."""
    lines = [f"{fault['error']}: {fault['message']}"]
    lines += [f"- {detail}" for detail in fault.get("details", [])]
    if fault.get("hint"):
        lines.append(f"hint: {fault['hint']}")
    return "\n".join(lines)


def failed(kind: Kind, subject: Buildable, runner: Runner, error: BaseException) -> State[Any]:
    """Keep the build as it is, or undo it, as its policy says.

    There is nothing to look at inside of what the API's steps refused, and what was
    cancelled is not wanted: these are undone whatever the policy is.

    Raises:
        LeaseLost: Another run works on the build by now.
    """
    store = subject.store
    store.leases.require(subject.build_id, subject.lease_token)
    fault = {**error_dict(error), "step": failed_step(subject)}
    get_run_logger().error("%s", message_of(fault))
    step = kind.catalogue.steps.get(fault["step"] or 0)
    kept = store.builds.get(subject.build_id).policy == "keep" and step and step.stage != "A"
    if kept and isinstance(error, Exception) and not isinstance(error, NeedsAttention):
        return end_build(kind, subject, "kept", fault, "Kept")
    return undo(kind, subject, runner, fault, undone="undone")


def failed_step(subject: Subject) -> int | None:
    """The step at which a build stopped; None where none failed."""
    entries = subject.store.journal.entries(subject.build_id, subject.generation)
    failed = [
        (entry.finished_at, entry.step)
        for entry in entries
        if entry.state is StepState.FAILED and entry.finished_at
    ]
    return min(failed)[1] if failed else None


def undo(
    kind: Kind,
    subject: Buildable,
    runner: Runner,
    fault: dict[str, Any] | None,
    *,
    undone: str,
) -> State[Any]:
    """Undo every step, and record how that ended.

    Args:
        kind: What is undone.
        subject: The build.
        runner: Its runner.
        fault: Why; None for a delete, which needs no reason.
        undone: The build's state when nothing is left: `undone` or `deleted`.
    """
    # On disk before the first undo: whoever finds this build stopped must not go on with it.
    state = "deleting" if undone == "deleted" else "undoing"
    subject.store.builds.update(
        subject.build_id, lease=subject.lease_token, state=state, fault=fault
    )
    with undisturbed():
        left = runner.unwind()
    if left:
        name = subject.store.builds.get(subject.build_id).name
        why = f"; it had stopped with {fault['error']}: {fault['message']}" if fault else ""
        error = NeedsAttention(
            f"{len(left)} undo(s) of {name} failed{why}",
            hint=f"`fifty {kind.word} {kind.undo_again} {name}` tries again once the cause is gone",
            details=left,
        )
        trouble = {**error_dict(error), "step": fault.get("step") if fault else None}
        return end_build(kind, subject, "needs_attention", trouble, "NeedsAttention")
    if undone == "undone" and not runner.changed:
        return end_build(kind, subject, "refused", fault, "Refused")
    end = end_build(kind, subject, undone, fault, "RolledBack")
    if undone == "deleted":
        _forget_checkpoints(subject)
    return end


def end_build(
    kind: Kind, subject: Buildable, state: str, fault: dict[str, Any] | None, failed: str
) -> State[Any]:
    """Record a build's end on the build, on the thing, and in the summary artifact."""
    store = subject.store
    store.leases.require(subject.build_id, subject.lease_token)
    words = subject.settle(state, fault)
    store.builds.update(subject.build_id, lease=subject.lease_token, state=state, fault=fault)
    publish_summary(kind.catalogue, store, store.builds.get(subject.build_id))
    if state == "deleted":
        return Completed(message=words)
    return Failed(name=failed, message=message_of(fault or {"error": failed, "message": words}))


def _forget_checkpoints(subject: Subject) -> None:
    for file in settings().checkpoints.glob(f"{uuid.UUID(subject.build_id)}-*"):
        file.unlink(missing_ok=True)

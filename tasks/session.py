"""A run that works on one build: how it is opened, and the ends that it can have."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from prefect import get_run_logger
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.states import Completed, Failed
from pydantic import BaseModel

from blocks.errors import Conflict, Denied, FiftyError, InvalidRequest, NeedsAttention, NotFound
from blocks.resources import VmReference
from blocks.settings import settings
from blocks.state import Build, StepState
from blocks.world import World, open_world
from tasks.access import identify
from tasks.draft import describe_all
from tasks.run import Plan, Runner, lease, stays_resumable
from tasks.step import Catalogue, Subject, error_dict
from tasks.summary import Progress, publish_summary

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class Buildable(Subject, Protocol):
    """A subject that knows what the ends of its build mean for the thing itself."""

    #: Holds the lease's token while a run works on the build.
    lease_token: str | None

    def settle(self, state: str, fault: dict[str, Any] | None) -> str:
        """Make the thing itself say how its build stands.

        Args:
            state: The build's new state: building, complete, kept, refused, undone,
                needs_attention, deleting, deleted.
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


def create(kind: Kind, request: BaseModel | Mapping[str, Any], plan: Plan) -> State[Any]:
    """Build what a request asks for, or go on with the build that it stands for.

    Args:
        kind: What is built.
        request: As the flow got it: not validated.
        plan: The steps, in order.

    Returns:
        Completed, or Failed with a name that says how it ended: Refused, RolledBack,
        Kept, NeedsAttention.
    """
    try:
        world = open_world(settings())
        build, again = _open(kind, world, as_form(request))
        if build.state == "complete":
            return Completed(message=f"{build.name} was there already")
        if again and build.state != "building":
            return _as_it_ended(build)
        return _work(kind, world, build, plan, "create")
    except FiftyError as error:
        return refused(error)


def resume(kind: Kind, request: BaseModel | Mapping[str, Any], plan: Plan) -> State[Any]:
    """Go on with a build where it stopped: finished steps are taken from their checkpoints."""
    try:
        world, build = _find(kind, request)
        if build.state not in ("building", "kept"):
            raise Conflict(
                f"{build.name} is {build.state}: there is nothing to go on with",
                hint=_what_else(kind, build),
            )
        return _work(kind, world, build, plan, "resume")
    except FiftyError as error:
        return refused(error)


def rollback(kind: Kind, request: BaseModel | Mapping[str, Any]) -> State[Any]:
    """Undo a build that did not get to its end; again, where an undo failed."""
    try:
        world, build = _find(kind, request)
        if build.state == "complete":
            raise Conflict(f"{build.name} is complete", hint=_what_else(kind, build))
        if build.state in ("undone", "refused", "deleted"):
            return Completed(message=f"{build.name} is {build.state} already")
        subject = kind.subject(world, build)
        with lease(subject, "rollback") as token, Progress(kind.catalogue, world.store, build.id):
            subject.lease_token = token
            cause = build.fault or {"error": "Stopped", "message": "undone on request"}
            state = _undo(kind, subject, Runner(kind.catalogue, subject), cause, undone="undone")
            # Undoing is what was asked for: done, the run has succeeded.
            done = state.name == "RolledBack"
            return Completed(message=f"{build.name} is undone") if done else state
    except FiftyError as error:
        return refused(error)


def delete(kind: Kind, request: BaseModel | Mapping[str, Any]) -> State[Any]:
    """Delete a thing: every step that made it is undone, in reverse."""
    try:
        world, build = _find(kind, request)
        if build.state == "deleted":
            return Completed(message=f"{build.name} is deleted already")
        subject = kind.subject(world, build)
        with lease(subject, "delete") as token:
            subject.lease_token = token
            subject.settle("deleting", None)
            world.store.builds.update(build.id, state="deleting")
            runner = Runner(kind.catalogue, subject)
            return _undo(kind, subject, runner, None, undone="deleted")
    except FiftyError as error:
        return refused(error)


def as_form(request: BaseModel | Mapping[str, Any]) -> dict[str, Any]:
    """A flow's parameter as plain JSON, in whatever form it came.

    Raises:
        InvalidRequest: It is not a set of fields at all.
    """
    if isinstance(request, BaseModel):
        return request.model_dump(mode="json", exclude_unset=True)
    if isinstance(request, Mapping):
        return dict(request)
    raise InvalidRequest("the request must be an object with fields")


def refused(error: FiftyError) -> State[Any]:
    """The state of a run whose request was refused."""
    get_run_logger().error("%s: %s (%s)", type(error).__name__, error, error.hint)
    return Failed(name="Refused", message=_words(error_dict(error)))


def _words(fault: Mapping[str, Any]) -> str:
    lines = [f"{fault['error']}: {fault['message']}", *fault.get("details", [])]
    if fault.get("hint"):
        lines.append(f"hint: {fault['hint']}")
    return "\n".join(lines)


def _flow_run_id() -> str | None:
    context = FlowRunContext.get()
    return str(context.flow_run.id) if context and context.flow_run else None


def _text(form: Mapping[str, Any], field: str, default: str) -> str:
    value = form.get(field)
    return value if isinstance(value, str) and value else default


def _name(form: Mapping[str, Any]) -> str:
    """What the build is called: the thing's name, where that is one at all."""
    name = _text(form, "name", _text(form, "recipe", ""))
    return name if _NAME.fullmatch(name) else "(no name)"


def _open(kind: Kind, world: World, form: dict[str, Any]) -> tuple[Build, bool]:
    """Record the build, or find the one whose request id this is; True where it ended before."""
    flow_run_id = _flow_run_id()
    credentials = _text(form, "credentials", settings().credentials)
    build, new = world.store.builds.open(
        build_id=str(uuid.uuid4()),
        catalogue=kind.catalogue.name,
        name=_name(form),
        credentials=credentials,
        request=form,
        request_id=_text(form, "request_id", flow_run_id or str(uuid.uuid4())),
        flow_run_id=flow_run_id,
        policy=_text(form, "on_failure", "rollback"),
    )
    if new:
        return build, False
    # Steps 1 and 3 may be taken from their checkpoints: whoever asks is looked at again.
    _own(kind, world, build, credentials)
    same_run = build.flow_run_id == flow_run_id
    if same_run and build.state in ("undone", "refused"):
        # Prefect's Retry of a run that was rolled back: everything once more.
        world.store.builds.update(
            build.id, generation=build.generation + 1, state="building", plan={}, fault=None
        )
    return world.store.builds.get(build.id), not same_run


def _own(kind: Kind, world: World, build: Build, credentials: str) -> None:
    caller = identify(world.store, credentials)
    if build.tenant_id is not None and caller.tenant_id != build.tenant_id:
        raise NotFound(f"there is no {kind.word} {build.name!r}")
    if caller.role == "reader":
        raise Denied("a reader may only look", hint="use credentials of a member")


def _find(kind: Kind, request: BaseModel | Mapping[str, Any]) -> tuple[World, Build]:
    """The build that a reference is about, checked to be the caller's."""
    form = as_form(request)
    errors = describe_all(VmReference, form)
    if errors:
        raise InvalidRequest("the reference is wrong", details=errors)
    reference = VmReference.model_validate(form)
    world = open_world(settings())
    caller = identify(world.store, reference.credentials)
    build = world.store.builds.find(kind.catalogue.name, reference.name, caller.tenant_id)
    _own(kind, world, build, reference.credentials)
    return world, build


def _work(kind: Kind, world: World, build: Build, plan: Plan, purpose: str) -> State[Any]:
    """Run the plan under the build's lease, to one of its ends."""
    subject = kind.subject(world, build)
    store = world.store
    runner = Runner(kind.catalogue, subject)
    with lease(subject, purpose) as token, Progress(kind.catalogue, store, build.id):
        subject.lease_token = token
        store.builds.update(build.id, state="building", fault=None, flow_run_id=_flow_run_id())
        subject.settle("building", None)
        try:
            plan(runner)
        except BaseException as error:
            if stays_resumable(error):
                raise
            state = _failed(kind, subject, runner, error)
            if not isinstance(error, Exception):
                raise
            return state
        words = subject.settle("complete", None)
        store.builds.update(build.id, state="complete")
    publish_summary(kind.catalogue, store, store.builds.get(build.id))
    return Completed(message=words)


def _failed(kind: Kind, subject: Buildable, runner: Runner, error: BaseException) -> State[Any]:
    """Keep the build as it is, or undo it, as its policy says."""
    store = subject.store
    fault = {**error_dict(error), "step": _failed_step(subject)}
    get_run_logger().error("%s", _words(fault))
    store.builds.update(subject.build_id, fault=fault)
    build = store.builds.get(subject.build_id)
    if build.policy == "keep" and not isinstance(error, NeedsAttention):
        return _end(kind, subject, "kept", fault, "Kept")
    return _undo(kind, subject, runner, fault, undone="undone")


def _failed_step(subject: Subject) -> int | None:
    entries = subject.store.journal.entries(subject.build_id, subject.generation)
    failed = [
        (entry.finished_at, entry.step)
        for entry in entries
        if entry.state is StepState.FAILED and entry.finished_at
    ]
    return min(failed)[1] if failed else None


def _undo(
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
    left = runner.unwind()
    if left:
        name = subject.store.builds.get(subject.build_id).name
        error = NeedsAttention(
            f"{len(left)} undo(s) of {name} failed",
            hint=f"`fifty {kind.word} {kind.undo_again} {name}` tries again once the cause is gone",
            details=left,
        )
        trouble = {**error_dict(error), "step": fault.get("step") if fault else None}
        return _end(kind, subject, "needs_attention", trouble, "NeedsAttention")
    if undone == "undone" and not runner.changed:
        return _end(kind, subject, "refused", fault, "Refused")
    state = _end(kind, subject, undone, fault, "RolledBack")
    if undone == "deleted":
        _forget_checkpoints(subject)
    return state


def _end(
    kind: Kind, subject: Buildable, state: str, fault: dict[str, Any] | None, failed: str
) -> State[Any]:
    """Record a build's end on the build, on the thing, and in the summary artifact."""
    store = subject.store
    words = subject.settle(state, fault)
    store.builds.update(subject.build_id, state=state, fault=fault)
    publish_summary(kind.catalogue, store, store.builds.get(subject.build_id))
    if state == "deleted":
        return Completed(message=words)
    return Failed(name=failed, message=_words(fault or {"error": failed, "message": words}))


def _forget_checkpoints(subject: Subject) -> None:
    for file in settings().checkpoints.glob(f"{uuid.UUID(subject.build_id)}-*"):
        file.unlink(missing_ok=True)


def _as_it_ended(build: Build) -> State[Any]:
    fault = build.fault or {"error": "Conflict", "message": f"{build.name} is {build.state}"}
    return Failed(name="Refused", message=_words(fault))


def _what_else(kind: Kind, build: Build) -> str:
    command = f"fifty {kind.word}"
    return {
        "complete": f"`{command} delete {build.name}` removes it",
        "undone": "create it again",
        "refused": "correct the request, and create it again",
        "deleted": "create it again",
        "needs_attention": f"`{command} {kind.undo_again} {build.name}`",
    }.get(build.state, f"`{command} show {build.name}`")

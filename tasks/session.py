"""A run that works on one build: how it is opened, and the ends that it can have."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import Any

from prefect import get_run_logger
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.exceptions import TerminationSignal
from prefect.states import Cancelled, Completed, Failed
from pydantic import BaseModel

from blocks.errors import Conflict, FiftyError, InvalidRequest, LeaseLost
from blocks.resources import VmReference
from blocks.settings import settings
from blocks.state import Build
from blocks.world import World, open_world
from tasks.access import authorized_build, check_same_caller
from tasks.cancelling import cancellable, stays_resumable, stop_run, was_cancelled
from tasks.draft import describe_all
from tasks.ends import Kind, failed, message_of, undo
from tasks.run import Plan, Runner, lease
from tasks.step import error_dict
from tasks.summary import Progress, publish_refusal, publish_summary

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


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
        if build.state in ("deleting", "deleted"):
            raise Conflict(f"what this request made is {build.state}", hint=_what_else(kind, build))
        if again and build.state != "building":
            return _as_it_ended(build)
        # Only Prefect's Retry of the same run comes here with a build that has ended.
        if build.state in ("undoing", "needs_attention"):
            state = _undo(kind, world, build, "create")
            if state.name == "NeedsAttention":
                return state
            build = world.store.builds.get(build.id)
        if build.state in ("undone", "refused"):
            build = _next_generation(world, build)
        return _work(kind, world, build, plan, "create")
    except FiftyError as error:
        return refused(error)


def resume(kind: Kind, request: BaseModel | Mapping[str, Any], plan: Plan) -> State[Any]:
    """Go on with a build where it stopped: finished steps are taken from their checkpoints."""
    try:
        world, build = _find(kind, request, "resume")
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
        world, build = _find(kind, request, "rollback")
        if build.state == "complete":
            raise Conflict(f"{build.name} is complete", hint=_what_else(kind, build))
        if build.state in ("undone", "refused", "deleted"):
            return Completed(message=f"{build.name} is {build.state} already")
        if build.state == "deleting":
            raise Conflict(f"{build.name} is being deleted", hint=_what_else(kind, build))
        return _undo(kind, world, build, "rollback")
    except FiftyError as error:
        return refused(error)


def delete(kind: Kind, request: BaseModel | Mapping[str, Any]) -> State[Any]:
    """Delete a thing: every step that made it is undone, in reverse."""
    try:
        world, build = _find(kind, request, "delete")
        if build.state == "deleted":
            return Completed(message=f"{build.name} is deleted already")
        return _delete(kind, world, build)
    except FiftyError as error:
        return refused(error)


def finish(kind: Kind, world: World, build: Build, plan: Plan) -> State[Any]:
    """Bring a build that nobody works on any more to an end, whoever asked for it.

    What was being undone or deleted is undone or deleted to its end; what was being built
    is gone on with, or undone where its request's `on_interrupt` says so or its run was
    cancelled. What was being built before the host was rebooted is built anew: bridges,
    taps and processes are gone.
    """
    try:
        undo_it = (
            build.state == "undoing"
            or build.request.get("on_interrupt") == "rollback"
            or was_cancelled(build.flow_run_id)
        )
        if build.state == "deleting":
            return _delete(kind, world, build)
        if build.state not in ("building", "undoing"):
            return Completed(message=f"{build.name} is {build.state}: there is nothing to do")
        if undo_it or world.store.journal.rebooted(build.id, build.generation):
            state = _undo(kind, world, build, "reconcile")
            if undo_it or not state.is_completed():
                return state
            build = _next_generation(world, build)
        return _work(kind, world, build, plan, "reconcile")
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
    """The state of a run whose request was refused, or that was taken over; told in an artifact."""
    fault = error_dict(error)
    get_run_logger().error("%s", message_of(fault))
    publish_refusal(fault)
    name = "TakenOver" if isinstance(error, LeaseLost) else "Refused"
    return Failed(name=name, message=message_of(fault))


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
    check_same_caller(world.store, build, credentials)
    return build, build.flow_run_id != flow_run_id


def _next_generation(world: World, build: Build) -> Build:
    """Everything of a build that was undone once more, with checkpoints of its own."""
    world.store.builds.update(
        build.id, generation=build.generation + 1, state="building", plan={}, fault=None
    )
    return world.store.builds.get(build.id)


def _find(kind: Kind, request: BaseModel | Mapping[str, Any], purpose: str) -> tuple[World, Build]:
    """The build that a reference is about, checked to be the caller's, who may do this."""
    form = as_form(request)
    errors = describe_all(VmReference, form)
    if errors:
        raise InvalidRequest("the reference is wrong", details=errors)
    reference = VmReference.model_validate(form)
    world = open_world(settings())
    build = authorized_build(
        world.store, kind.catalogue.name, reference.name, reference.credentials, purpose
    )
    return world, build


def _work(kind: Kind, world: World, build: Build, plan: Plan, purpose: str) -> State[Any]:
    """Run the plan under the build's lease, to one of its ends."""
    subject = kind.subject(world, build)
    store = world.store
    runner = Runner(kind.catalogue, subject)
    with lease(subject, purpose) as token, Progress(kind.catalogue, store, build.id):
        subject.lease_token = token
        flow_run_id = _flow_run_id()
        store.builds.update(
            build.id, lease=token, state="building", fault=None, flow_run_id=flow_run_id
        )
        subject.settle("building", None)
        try:
            with cancellable():
                plan(runner)
        except BaseException as error:
            if stays_resumable(error):
                raise
            state = failed(kind, subject, runner, error)
            if isinstance(error, TerminationSignal):
                # It was a cancel, else it would have stayed resumable.
                return Cancelled(message=state.message)
            if not isinstance(error, Exception):
                raise
            return state
        store.leases.require(build.id, token)
        words = subject.settle("complete", None)
        store.builds.update(build.id, lease=token, state="complete")
    publish_summary(kind.catalogue, store, store.builds.get(build.id))
    return Completed(message=words)


def _undo(kind: Kind, world: World, build: Build, purpose: str) -> State[Any]:
    """Undo a build under its lease, to its end."""
    subject = kind.subject(world, build)
    with lease(subject, purpose) as token, Progress(kind.catalogue, world.store, build.id):
        subject.lease_token = token
        cause = build.fault or {"error": "Stopped", "message": "undone on request"}
        state = undo(kind, subject, Runner(kind.catalogue, subject), cause, undone="undone")
    # Undoing is what was asked for: done, the run has succeeded.
    done = state.name in ("RolledBack", "Refused")
    return Completed(message=f"{build.name} is undone") if done else state


def _delete(kind: Kind, world: World, build: Build) -> State[Any]:
    """Delete what a build made, under its lease."""
    subject = kind.subject(world, build)
    stop_run(world.store, build)
    with lease(subject, "delete") as token, Progress(kind.catalogue, world.store, build.id):
        subject.lease_token = token
        subject.settle("deleting", None)
        return undo(kind, subject, Runner(kind.catalogue, subject), None, undone="deleted")


def _as_it_ended(build: Build) -> State[Any]:
    fault = build.fault or {"error": "Conflict", "message": f"{build.name} is {build.state}"}
    return Failed(name="Refused", message=message_of(fault))


def _what_else(kind: Kind, build: Build) -> str:
    command = f"fifty {kind.word}"
    return {
        "complete": f"`{command} delete {build.name}` removes it",
        "undone": "create it again",
        "undoing": f"`{command} {kind.undo_again} {build.name}` undoes it to its end",
        "deleting": f"`{command} delete {build.name}` deletes it to its end",
        "refused": "correct the request, and create it again",
        "deleted": "create it again",
        "needs_attention": f"`{command} {kind.undo_again} {build.name}`",
    }.get(build.state, f"`{command} show {build.name}`")

"""A run that works on one build: how it is opened, and the ends that it can have."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import Any

from prefect import get_run_logger
from prefect.client.schemas.objects import State
from prefect.exceptions import TerminationSignal
from prefect.states import Cancelled, Completed, Failed
from pydantic import BaseModel, ValidationError

from blocks.errors import Conflict, Denied, FiftyError, InvalidRequest, LeaseLost, NotFound
from blocks.resources import VmReference
from blocks.settings import settings
from blocks.state import Build
from blocks.world import World, open_world
from tasks.access import authorized_build, check_same_caller
from tasks.at_work import at_work, flow_run_id
from tasks.cancelling import cancellable, stays_resumable, stop_run
from tasks.draft import describe_all
from tasks.ends import Kind, failed, message_of, undo
from tasks.restoring import Restoration, is_restored, restore
from tasks.run import Plan, Runner
from tasks.step import error_dict
from tasks.summary import publish_refusal, publish_summary

_STANDS = ("complete", "restoring")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def create(
    kind: Kind,
    request: BaseModel | Mapping[str, Any],
    plan: Plan,
    restoration: Restoration | None = None,
    form_of: type[BaseModel] | None = None,
) -> State[Any]:
    """Build what a request asks for, or go on with the build that it stands for.

    Args:
        kind: What is built.
        request: As the flow got it: not validated.
        plan: The steps, in order.
        restoration: What brings back what this host has lost of one that is complete; None
            leaves that to the reconcile.
        form_of: The request's form, where one in the same words stands for what is there.

    Returns:
        Completed, or Failed with a name that says how it ended: Refused, RolledBack,
        Kept, NeedsAttention.
    """
    try:
        world = open_world(settings())
        form = as_form(request)
        standing = _standing(kind, world, form, form_of) if form_of else None
        build, again = (standing, True) if standing else _open(kind, world, form)
        # `restoring` once a restore of it has failed.
        if restoration and (build.state == "restoring" or restoration.why_lost(kind, world, build)):
            return restore(kind, world, build, restoration, "create")
        if build.state == "complete":
            return Completed(message=f"{build.name} was there already")
        if build.state in ("deleting", "deleted"):
            raise Conflict(f"what this request made is {build.state}", hint=_what_else(kind, build))
        if again and build.state != "building":
            return _as_it_ended(build)
        # Only Prefect's Retry of the same run comes here with a build that has ended.
        if build.state in ("undoing", "needs_attention"):
            state = undo_build(kind, world, build, "create")
            if state.name == "NeedsAttention":
                return state
            build = world.store.builds.get(build.id)
        if build.state in ("undone", "refused"):
            build = next_generation(world, build)
        return work(kind, world, build, plan, "create")
    except FiftyError as error:
        return refused(error)


def resume(kind: Kind, request: BaseModel | Mapping[str, Any], plan: Plan) -> State[Any]:
    """Go on with a build where it stopped: finished steps are taken from their checkpoints."""
    try:
        world, build = _find(kind, request, "resume")
        if build.state not in ("building", "kept") or is_restored(build):
            raise Conflict(
                f"{build.name} is {build.state}: there is nothing to go on with",
                hint=_what_else(kind, build),
            )
        return work(kind, world, build, plan, "resume")
    except FiftyError as error:
        return refused(error)


def rollback(kind: Kind, request: BaseModel | Mapping[str, Any]) -> State[Any]:
    """Undo a build that did not get to its end; again, where an undo failed."""
    try:
        world, build = _find(kind, request, "rollback")
        if build.state == "complete" or is_restored(build):
            raise Conflict(f"{build.name} was complete", hint=_what_else(kind, build))
        if build.state in ("undone", "refused", "deleted"):
            return Completed(message=f"{build.name} is {build.state} already")
        if build.state == "deleting":
            raise Conflict(f"{build.name} is being deleted", hint=_what_else(kind, build))
        return undo_build(kind, world, build, "rollback")
    except FiftyError as error:
        return refused(error)


def delete(kind: Kind, request: BaseModel | Mapping[str, Any]) -> State[Any]:
    """Delete a thing: every step that made it is undone, in reverse."""
    try:
        world, build = _find(kind, request, "delete")
        if build.state == "deleted":
            return Completed(message=f"{build.name} is deleted already")
        return delete_build(kind, world, build)
    except FiftyError as error:
        return refused(error)


def start(kind: Kind, request: BaseModel | Mapping[str, Any], again: Restoration) -> State[Any]:
    """Start again what was complete and is off, or could not be brought back to this host."""
    try:
        world, build = _find(kind, request, "start")
        if build.state not in ("complete", "restoring") and not is_restored(build):
            raise Conflict(f"{build.name} is {build.state}", hint=_what_else(kind, build))
        if again.runs(kind.subject(world, build)):
            return Completed(message=f"{build.name} is running")
        return restore(kind, world, build, again, "start")
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


def _text(form: Mapping[str, Any], field: str, default: str) -> str:
    value = form.get(field)
    return value if isinstance(value, str) and value else default


def _name(form: Mapping[str, Any]) -> str:
    """What the build is called: the thing's name, where that is one at all."""
    name = _text(form, "name", _text(form, "recipe", ""))
    return name if _NAME.fullmatch(name) else "(no name)"


def _standing(
    kind: Kind, world: World, form: dict[str, Any], form_of: type[BaseModel]
) -> Build | None:
    """What is there by the name in a request, if the same was asked for then; else None."""
    name, credentials = _name(form), _text(form, "credentials", settings().credentials)
    try:
        wanted = form_of.model_validate(form)
        what = kind.catalogue.name
        found = authorized_build(world.store, what, name, credentials, "create")
        before = form_of.model_validate(found.request)
    except (ValidationError, Denied, InvalidRequest, NotFound):
        return None  # the first steps tell what is wrong, where something is
    but = {"credentials"}
    same = wanted.model_dump(exclude=but) == before.model_dump(exclude=but)
    return found if same and found.name == name and found.state in _STANDS else None


def _open(kind: Kind, world: World, form: dict[str, Any]) -> tuple[Build, bool]:
    """Record the build, or find the one whose request id this is; True where it ended before."""
    run_id = flow_run_id()
    credentials = _text(form, "credentials", settings().credentials)
    build, new = world.store.builds.open(
        build_id=str(uuid.uuid4()),
        catalogue=kind.catalogue.name,
        name=_name(form),
        credentials=credentials,
        request=form,
        request_id=_text(form, "request_id", run_id or str(uuid.uuid4())),
        flow_run_id=run_id,
        policy=_text(form, "on_failure", "rollback"),
    )
    if new:
        return build, False
    # Steps 1 and 3 may be taken from their checkpoints: whoever asks is looked at again.
    check_same_caller(world.store, build, credentials)
    return build, build.flow_run_id != run_id


def next_generation(world: World, build: Build) -> Build:
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


def work(kind: Kind, world: World, build: Build, plan: Plan, purpose: str) -> State[Any]:
    """Run the plan under the build's lease, to one of its ends."""
    store = world.store
    with at_work(kind, world, build, purpose) as subject:
        token, runner = subject.lease_token, Runner(kind.catalogue, subject)
        store.builds.update(
            build.id, lease=token, state="building", fault=None, flow_run_id=flow_run_id()
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


def undo_build(kind: Kind, world: World, build: Build, purpose: str) -> State[Any]:
    """Undo a build under its lease, to its end."""
    with at_work(kind, world, build, purpose) as subject:
        cause = build.fault or {"error": "Stopped", "message": "undone on request"}
        state = undo(kind, subject, Runner(kind.catalogue, subject), cause, undone="undone")
    # Undoing is what was asked for: done, the run has succeeded.
    done = state.name in ("RolledBack", "Refused")
    return Completed(message=f"{build.name} is undone") if done else state


def delete_build(kind: Kind, world: World, build: Build) -> State[Any]:
    """Delete what a build made, under its lease; another delete of it is waited for."""
    token = stop_run(world.store, build, "delete")
    build = world.store.builds.get(build.id)
    if build.state == "deleted":
        world.store.leases.release(build.id, token)
        return Completed(message=f"{build.name} is deleted already")
    with at_work(kind, world, build, "delete", token) as subject:
        subject.settle("deleting", None)
        return undo(kind, subject, Runner(kind.catalogue, subject), None, undone="deleted")


def _as_it_ended(build: Build) -> State[Any]:
    fault = build.fault or {"error": "Conflict", "message": f"{build.name} is {build.state}"}
    return Failed(name="Refused", message=message_of(fault))


def _what_else(kind: Kind, build: Build) -> str:
    command = f"fifty {kind.word}"
    if is_restored(build):
        return f"`{command} start {build.name}` brings it back; `{command} delete` removes it"
    return {
        "complete": f"`{command} delete {build.name}` removes it",
        "undone": "create it again",
        "restoring": f"it is being brought back; `{command} show {build.name}` tells how it stands",
        "undoing": f"`{command} {kind.undo_again} {build.name}` undoes it to its end",
        "deleting": f"`{command} delete {build.name}` deletes it to its end",
        "refused": "correct the request, and create it again",
        "deleted": "create it again",
        "needs_attention": f"`{command} {kind.undo_again} {build.name}`",
    }.get(build.state, f"`{command} show {build.name}`")

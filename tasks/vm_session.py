"""A run that works on one VM's build: how it is opened, and how it ends."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.states import Completed, Failed
from pydantic import BaseModel

from blocks.errors import Conflict, Denied, FiftyError, InvalidRequest, NeedsAttention, NotFound
from blocks.resources import InstanceStatus, TaskState, VmReference, VmRequest
from blocks.settings import settings
from blocks.state import Build, StepState
from blocks.world import World, open_world
from tasks.draft import describe_all
from tasks.run import Plan, Runner, lease, stays_resumable
from tasks.step import error_dict
from tasks.steps_01_11_api import identify
from tasks.steps_48_50_guest import addresses
from tasks.summary import Progress, publish_summary
from tasks.vm_build import VM, VmBuild

_S = InstanceStatus


def create(request: VmRequest | Mapping[str, Any], plan: Plan) -> State[Any]:
    """Build what a request asks for, or go on with the build that it stands for.

    Args:
        request: As the flow got it: not validated.
        plan: The fifty steps.

    Returns:
        Completed, or Failed with a name that says how it ended: Refused, RolledBack,
        Kept, NeedsAttention.
    """
    try:
        world = open_world(settings())
        build, again = _open(world, as_form(request))
        if build.state == "complete":
            return Completed(message=f"{build.name} was there already")
        if again and build.state != "building":
            return _as_it_ended(build)
        return _work(world, build, plan, "create")
    except FiftyError as error:
        return refused(error)


def resume(request: VmReference | Mapping[str, Any], plan: Plan) -> State[Any]:
    """Go on with a build where it stopped: finished steps are taken from their checkpoints."""
    try:
        world, build = _find(request)
        if build.state not in ("building", "kept"):
            raise Conflict(
                f"{build.name} is {build.state}: there is nothing to go on with",
                hint=_what_else(build),
            )
        return _work(world, build, plan, "resume")
    except FiftyError as error:
        return refused(error)


def rollback(request: VmReference | Mapping[str, Any]) -> State[Any]:
    """Undo a build that did not get to its end; again, where an undo failed."""
    try:
        world, build = _find(request)
        if build.state == "complete":
            raise Conflict(f"{build.name} is complete", hint=_what_else(build))
        if build.state in ("undone", "deleted"):
            return Completed(message=f"{build.name} is {build.state} already")
        subject = VmBuild(world, build)
        with lease(subject, "rollback") as token, Progress(VM, world.store, build.id):
            subject.lease_token = token
            cause = build.fault or {"error": "Stopped", "message": "undone on request"}
            return _undo(subject, Runner(VM, subject), cause, undone="undone")
    except FiftyError as error:
        return refused(error)


def delete(request: VmReference | Mapping[str, Any]) -> State[Any]:
    """Delete a VM: every step that made it is undone, in reverse."""
    try:
        world, build = _find(request)
        if build.state == "deleted":
            return Completed(message=f"{build.name} is deleted already")
        subject = VmBuild(world, build)
        with lease(subject, "delete") as token:
            subject.lease_token = token
            world.store.builds.update(build.id, state="deleting")
            world.store.instances.set_status(build.id, _S.DELETING, task_state=TaskState.DELETING)
            return _undo(subject, Runner(VM, subject), None, undone="deleted")
    except FiftyError as error:
        return refused(error)


def on_selected_hosts(run: Runner, first: int, plan: Plan) -> None:
    """Run a plan on the selected host and, where that is at fault, on its alternates."""
    subject = run.subject
    assert isinstance(subject, VmBuild)  # noqa: S101 - for the type checker

    def choose(host: str) -> None:
        subject.store.builds.note(subject.build_id, host=host)

    run.on_hosts(subject.plan["hosts"], first, choose, plan)


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


def _open(world: World, form: dict[str, Any]) -> tuple[Build, bool]:
    """Record the build, or find the one whose request id this is; True where it ended before."""
    flow_run_id = _flow_run_id()
    credentials = _text(form, "credentials", settings().credentials)
    build, new = world.store.builds.open(
        build_id=str(uuid.uuid4()),
        catalogue=VM.name,
        name=_text(form, "name", "(no name)")[:63],
        credentials=credentials,
        request=form,
        request_id=_text(form, "request_id", flow_run_id or str(uuid.uuid4())),
        flow_run_id=flow_run_id,
        policy=_text(form, "on_failure", "rollback"),
    )
    if new:
        return build, False
    # Steps 1 and 3 may be taken from their checkpoints: whoever asks is looked at again.
    _own(world, build, credentials)
    same_run = build.flow_run_id == flow_run_id
    if same_run and build.state == "undone":
        # Prefect's Retry of a run that was rolled back: everything once more.
        world.store.builds.update(
            build.id, generation=build.generation + 1, state="building", plan={}, fault=None
        )
    else:
        world.store.builds.update(build.id, flow_run_id=flow_run_id)
    return world.store.builds.get(build.id), not same_run


def _own(world: World, build: Build, credentials: str) -> None:
    caller = identify(world.store, credentials)
    if build.tenant_id is not None and caller.tenant_id != build.tenant_id:
        raise NotFound(f"there is no VM {build.name!r}")
    if caller.role == "reader":
        raise Denied("a reader may look at VMs only", hint="use credentials of a member")


def _find(request: VmReference | Mapping[str, Any]) -> tuple[World, Build]:
    """The build that a reference is about, checked to be the caller's."""
    form = as_form(request)
    errors = describe_all(VmReference, form)
    if errors:
        raise InvalidRequest("the reference is wrong", details=errors)
    reference = VmReference.model_validate(form)
    world = open_world(settings())
    caller = identify(world.store, reference.credentials)
    try:
        build_id = world.store.instances.find(reference.name, caller.tenant_id).id
        build = world.store.builds.get(build_id)
    except NotFound:
        build = world.store.builds.latest(VM.name, reference.name)
    _own(world, build, reference.credentials)
    return world, build


def _work(world: World, build: Build, plan: Plan, purpose: str) -> State[Any]:
    """Run the plan under the build's lease, to one of its ends."""
    subject = VmBuild(world, build)
    store = world.store
    runner = Runner(VM, subject)
    with lease(subject, purpose) as token, Progress(VM, store, build.id):
        subject.lease_token = token
        store.builds.update(build.id, state="building", fault=None)
        if build.state == "kept":
            store.instances.set_status(build.id, _S.BUILD)
        try:
            plan(runner)
        except BaseException as error:
            if stays_resumable(error):
                raise
            state = _failed(subject, runner, error)
            if not isinstance(error, Exception):
                raise
            return state
        store.builds.update(build.id, state="complete")
    publish_summary(VM, store, store.builds.get(build.id))
    where = ", ".join(addresses(store, build.id))
    return Completed(message=f"{build.name} is ACTIVE at {where}")


def _failed(subject: VmBuild, runner: Runner, error: BaseException) -> State[Any]:
    """Keep the build as it is, or undo it, as its policy says."""
    store = subject.store
    fault = {**error_dict(error), "step": _failed_step(subject)}
    get_run_logger().error("%s", _words(fault))
    store.builds.update(subject.build_id, fault=fault)
    build = store.builds.get(subject.build_id)
    if build.policy == "keep" and not isinstance(error, NeedsAttention):
        store.builds.update(build.id, state="kept")
        store.instances.set_status(build.id, _S.ERROR, fault=fault)
        publish_summary(VM, store, store.builds.get(build.id))
        return Failed(name="Kept", message=_words(fault))
    return _undo(subject, runner, fault, undone="undone")


def _failed_step(subject: VmBuild) -> int | None:
    entries = subject.store.journal.entries(subject.build_id, subject.generation)
    failed = [
        (entry.finished_at, entry.step)
        for entry in entries
        if entry.state is StepState.FAILED and entry.finished_at
    ]
    return min(failed)[1] if failed else None


def _undo(
    subject: VmBuild, runner: Runner, fault: dict[str, Any] | None, *, undone: str
) -> State[Any]:
    """Undo every step, and record how that ended.

    Args:
        subject: The build.
        runner: Its runner.
        fault: Why; None for a delete, which needs no reason.
        undone: The build's state when nothing is left: `undone` or `deleted`.
    """
    store, build_id = subject.store, subject.build_id
    left = runner.unwind()
    if left:
        error = NeedsAttention(f"{len(left)} undo(s) of {subject.build.name} failed", details=left)
        trouble = {**error_dict(error), "step": fault.get("step") if fault else None}
        store.builds.update(build_id, state="needs_attention", fault=trouble)
        store.instances.set_status(build_id, _S.NEEDS_ATTENTION, fault=trouble)
        publish_summary(VM, store, store.builds.get(build_id))
        return Failed(name="NeedsAttention", message=_words(trouble))
    store.builds.update(build_id, state=undone, fault=fault)
    name = store.builds.get(build_id).name
    publish_summary(VM, store, store.builds.get(build_id))
    if undone == "deleted":
        store.instances.set_status(build_id, _S.DELETED)
        _forget_checkpoints(subject.world, build_id)
        return Completed(message=f"{name} is deleted")
    store.instances.set_status(build_id, _S.ERROR, fault=fault)
    return Failed(name="RolledBack", message=_words(fault or {}))


def _forget_checkpoints(world: World, build_id: str) -> None:
    directory: Path = world.settings.checkpoints
    for file in directory.glob(f"{uuid.UUID(build_id)}-*"):
        file.unlink(missing_ok=True)


def _as_it_ended(build: Build) -> State[Any]:
    fault = build.fault or {"error": "Conflict", "message": f"{build.name} is {build.state}"}
    return Failed(name="Refused", message=_words(fault))


def _what_else(build: Build) -> str:
    return {
        "complete": f"`fifty vm show {build.name}`; `fifty vm delete {build.name}` removes it",
        "undone": "create it again",
        "deleted": "create it again",
        "needs_attention": f"`fifty vm rollback {build.name}`",
    }.get(build.state, f"`fifty vm show {build.name}`")

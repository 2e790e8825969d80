"""`fifty vm delete`, `start`, `resume` and `rollback`; a VM's flow, drawn while it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from blocks.errors import FiftyError, InvalidRequest, NotFound
from blocks.state import Build, StateStore
from deployments.cli import documents, output
from deployments.cli.context import Credentials, Json, request_of, require_root
from deployments.cli.detaching import Detach, send
from deployments.cli.drawing import Drawing, view_for
from deployments.cli.flow_runs import Done, run_flow
from deployments.cli.output import INTERRUPTED, TERMINATED, Refusal, Terminated
from deployments.cli.scope import open_scope
from deployments.cli.vm_failure import failure
from deployments.cli.vm_views import CLOCKS


def resume(
    name: str,
    /,
    *,
    detach: Detach = False,
    credentials: Credentials = None,
    json: Json = False,
) -> None:
    """Go on with a build where it stopped; finished steps are not done again.

    Args:
        name: The VM's name or id.
    """
    _again("resume_vm", f"Going on with {name}", name, credentials, detach=detach, json=json)


def rollback(
    name: str,
    /,
    *,
    detach: Detach = False,
    credentials: Credentials = None,
    json: Json = False,
) -> None:
    """Undo a build that did not get to its end; again, where an undo failed.

    Args:
        name: The VM's name or id.
    """
    _again("rollback_vm", f"Undoing {name}", name, credentials, detach=detach, json=json)


def start(
    name: str,
    /,
    *,
    detach: Detach = False,
    credentials: Credentials = None,
    json: Json = False,
) -> None:
    """Start a VM that is off, on its own disks; exits when its guest answers.

    For one that was shut down, whose QEMU was killed, or that could not be brought back after
    a reboot of its host.

    Args:
        name: The VM's name or id.
    """
    _again("start_vm", f"Starting {name}", name, credentials, detach=detach, json=json)


def delete(
    name: str,
    /,
    *names: str,
    detach: Detach = False,
    credentials: Credentials = None,
    json: Json = False,
) -> int:
    """Delete VMs, with their snapshots: every step that made them is undone.

    One that cannot be deleted does not keep the others from it; the exit code is 1 then.

    Args:
        name: The VM's name or id.
        names: More of them.
    """
    if not names:
        _again("delete_vm", f"Deleting {name}", name, credentials, detach=detach, json=json)
        return 0
    if detach:
        raise InvalidRequest("--detach takes one VM", hint="leave it out, or delete one by one")
    told: list[Mapping[str, Any]] = []
    for each in dict.fromkeys((name, *names)):
        try:
            told.append(_on("delete_vm", f"Deleting {each}", each, credentials, as_json=json))
        except (FiftyError, Refusal) as error:
            document = output.refusal_document(error)
            told.append({"name": each, **document})
            if not json:
                output.refuse(document, as_json=False)
        else:
            if not json:
                tell(told[-1], json=False)
    if json:
        output.document(told)
    return int(any("error" in document for document in told))


def _again(
    flow: str, title: str, name: str, credentials: str | None, *, detach: bool, json: bool
) -> None:
    """Run a flow on a VM that is there, and tell how it ended."""
    if detach:
        request = request_of(credentials, name=name)
        send(flow.replace("_", "-"), request, json=json, look=f"fifty vm steps {name}")
        return
    tell(_on(flow, title, name, credentials, as_json=json), json=json)


def _on(
    flow: str, title: str, name: str, credentials: str | None, *, as_json: bool
) -> Mapping[str, Any]:
    """Run a flow on a VM that is there; how it ended."""
    require_root(f"`fifty vm {flow.removesuffix('_vm')}`")
    request = request_of(credentials, name=name)
    scope = open_scope(credentials)
    store, build_id = scope.store, scope.build(name).id
    snapshots = [one.name for one in store.snapshots.of(build_id)]
    # By id: a later build of the same name is another one's.
    done = run_vm_flow(
        flow, request, store, lambda: store.builds.get(build_id), title, as_json=as_json
    )
    found = ended(done, store, store.builds.get(build_id))
    gone = found["build_state"] == "deleted" and snapshots
    return {**found, "deleted_snapshots": snapshots} if gone else found


def run_vm_flow(
    flow: str,
    request: dict[str, Any],
    store: StateStore,
    find: Callable[[], Build | None],
    title: str,
    *,
    as_json: bool,
) -> Done:
    """Run a flow and draw what it does.

    Raises:
        Refusal: A signal ended it.
    """
    try:
        with Drawing(store, find, view_for(as_json=as_json, title=title)):
            return run_flow(flow, request)
    except (KeyboardInterrupt, Terminated) as error:
        build = find()
        interrupted = isinstance(error, KeyboardInterrupt)
        document: dict[str, Any] = {
            "error": "Interrupted" if interrupted else "Terminated",
            "message": "stopped by " + ("Ctrl-C" if interrupted else "SIGTERM"),
            "hint": "",
            "details": [],
        }
        code = INTERRUPTED if interrupted else TERMINATED
        raise Refusal(failure(document, store, build, None), code) from None


def ended(done: Done, store: StateStore, build: Build | None) -> Mapping[str, Any]:
    """How it ended.

    Raises:
        Refusal: Not well.
    """
    if done.error is not None:
        raise Refusal(failure(_why(done.error, build), store, build, done))
    if build is None:
        raise NotFound("the flow has ended, and has left no build", hint="look at its run's log")
    try:
        found = documents.vm_in_full(store, store.instances.get(build.id))
    except NotFound:
        found = {"id": build.id, "name": build.name, "status": None}
    return {**found, "build_state": build.state, "run_url": done.url}


def _why(error: Mapping[str, Any], build: Build | None) -> Mapping[str, Any]:
    """What a run failed with: as its build keeps it, which tells more, if that is this run's."""
    fault = build.fault if build is not None else None
    same = fault is not None and str(fault["message"]).partition("\n")[0] == error["message"]
    return fault if fault is not None and same else error


def tell(found: Mapping[str, Any], *, json: bool) -> None:
    """Tell how a VM's flow ended."""
    if json:
        output.document(found)
    elif found["status"] == "ACTIVE":
        _tell_active(found)
    else:
        names = ", ".join(found.get("deleted_snapshots", ()))
        and_with_it = f", and with it its snapshots: {output.plain(names)}" if names else ""
        output.say(f"{output.plain(found['name'])} is {found['build_state']}{and_with_it}.")
        if found["run_url"]:
            output.say(f"run  {output.plain(found['run_url'])}")


def _tell_active(found: Mapping[str, Any]) -> None:
    clocks = found["clocks"]
    times = (f"{name} {output.duration(clocks[f'{name}_s'])}" for name in CLOCKS)
    output.facts(
        (
            ("VM", f"{found['name']} is ACTIVE on {found['host']}"),
            *(
                ("address", f"{plug['address']} on {plug['network']}")
                for plug in found["addresses"]
            ),
            ("log in", found["login_command"]),
            ("times", ", ".join(times)),
            ("steps", f"fifty vm steps {found['name']} --changes"),
            ("run", found["run_url"]),
        )
    )

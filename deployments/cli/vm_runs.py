"""`fifty vm create`, `delete`, `resume` and `rollback`: flows, drawn while they run."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from blocks.errors import NotFound
from blocks.state import Build, StateStore
from deployments import defaults
from deployments.cli import documents, output
from deployments.cli.context import (
    Credentials,
    Flag,
    Json,
    Several,
    credentials_name,
    require_root,
)
from deployments.cli.detaching import Detach, send
from deployments.cli.drawing import Drawing, view_for
from deployments.cli.files import Findings
from deployments.cli.flow_runs import TERMINATED, Done, Terminated, run_flow
from deployments.cli.output import Refusal
from deployments.cli.scope import open_scope
from deployments.cli.vm_failure import failure
from deployments.cli.vm_views import CLOCKS

_INTERRUPTED = 130


def create(
    name: str,
    /,
    *,
    image: str,
    network: Annotated[list[str], Parameter(negative="")],
    flavor: str = "tiny",
    key: str = defaults.KEY_PAIR,
    user_data: str | None = None,
    user_data_secret: str | None = None,
    inject: Several = None,
    volume: Several = None,
    security_group: Several = None,
    fixed_ip: str | None = None,
    floating: Flag = False,
    zone: str | None = None,
    host: str | None = None,
    on_failure: Literal["rollback", "keep"] = "rollback",
    on_interrupt: Literal["resume", "rollback"] = "resume",
    request_id: str | None = None,
    detach: Detach = False,
    credentials: Credentials = None,
    json: Json = False,
) -> None:
    """Create a VM, and draw its fifty steps.

    Args:
        name: The VM's name, which is the guest's host name too.
        image: What its disk begins as.
        network: A network to put it into; can be given several times.
        flavor: Its size.
        key: Who may log in: a key pair's name, or a file with an OpenSSH key.
        user_data: A file for cloud-init.
        user_data_secret: Instead: the name of a Prefect Secret block that holds it.
        inject: SRC:DST, a file to put into its disk; can be given several times.
        volume: A data volume of so many GiB; can be given several times.
        security_group: What may reach it (default: default); can be given several times.
        fixed_ip: Its address on the first network.
        floating: Also a floating IP.
        zone: Only on hosts of this zone.
        host: On this host; admins only.
        on_failure: Undo everything, or keep it for looking inside.
        on_interrupt: What `fifty reconcile` does with it where its process was killed.
        request_id: The same id again is the same VM, however often it is sent.
    """
    request = _request(
        {
            "name": name,
            "image": image,
            "flavor": flavor,
            "networks": network,
            "security_groups": security_group,
            "fixed_ip": fixed_ip,
            "floating": floating or None,
            "user_data_secret": user_data_secret,
            "zone": zone,
            "host": host,
            "on_failure": on_failure,
            "on_interrupt": on_interrupt,
            "request_id": request_id if request_id is not None else str(uuid.uuid4()),
            "credentials": credentials_name(credentials),
        },
        key=key,
        user_data=user_data,
        inject=inject or [],
        volume=volume or [],
    )
    if detach:
        send("create-vm", request, json=json, look=f"fifty vm steps {name}")
        return
    require_root("creating a VM")
    store = open_scope(credentials).store

    def find() -> Build | None:
        return store.builds.of_request("vm", request["credentials"], request["request_id"])

    done = _run("create_vm", request, store, find, f"Creating {name}", as_json=json)
    _end(done, store, find(), request, json=json)


def _request(
    form: Mapping[str, Any],
    *,
    key: str,
    user_data: str | None,
    inject: list[str],
    volume: list[str],
) -> dict[str, Any]:
    """The request as the flow takes it; only the files are looked at here.

    Raises:
        InvalidRequest: Files cannot be read, or words have the wrong form; all of them.
    """
    findings = Findings()
    files = {
        "key": findings.key(key),
        "user_data": findings.user_data(user_data) if user_data is not None else None,
        "inject": [findings.injected(pair) for pair in inject] or None,
        "volumes": [findings.whole("--volume", size) for size in volume] or None,
    }
    findings.refuse()
    return {field: value for field, value in {**form, **files}.items() if value is not None}


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


def delete(
    name: str,
    /,
    *,
    detach: Detach = False,
    credentials: Credentials = None,
    json: Json = False,
) -> None:
    """Delete a VM: every step that made it is undone.

    Args:
        name: The VM's name or id.
    """
    _again("delete_vm", f"Deleting {name}", name, credentials, detach=detach, json=json)


def _again(
    flow: str, title: str, name: str, credentials: str | None, *, detach: bool, json: bool
) -> None:
    """Run a flow on a VM that is there."""
    request = {"name": name, "credentials": credentials_name(credentials)}
    if detach:
        send(flow.replace("_", "-"), request, json=json, look=f"fifty vm steps {name}")
        return
    require_root(f"`fifty vm {flow.removesuffix('_vm')}`")
    scope = open_scope(credentials)
    store, build_id = scope.store, scope.build(name).id
    # By id: a later build of the same name is another one's.
    done = _run(flow, request, store, lambda: store.builds.get(build_id), title, as_json=json)
    _end(done, store, store.builds.get(build_id), request, json=json)


def _run(
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
        code = _INTERRUPTED if interrupted else TERMINATED
        raise Refusal(failure(document, store, build, None), code) from None


def _end(
    done: Done, store: StateStore, build: Build | None, request: Mapping[str, Any], *, json: bool
) -> None:
    """Tell how it ended.

    Raises:
        Refusal: Not well.
    """
    if done.error is not None:
        fault = build.fault if build is not None and build.fault else done.error
        raise Refusal(failure(fault, store, build, done))
    if build is None:
        raise NotFound("the flow has ended, and has left no build", hint="look at its run's log")
    try:
        found = documents.vm_in_full(store, store.instances.get(build.id))
    except NotFound:
        found = {"id": build.id, "name": build.name, "status": None}
    found = {**found, "build_state": build.state, "run_url": done.url}
    if json:
        output.document(found)
    elif found["status"] == "ACTIVE":
        _tell_active(found)
    else:
        output.say(f"{output.plain(build.name)} is {build.state}.")
        if done.url:
            output.say(f"run  {output.plain(done.url)}")


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

"""`fifty vm list`, `show` and `steps`: what the state store knows, without Prefect."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from blocks.errors import NotFound
from blocks.settings import settings
from blocks.state import Build, StateStore
from blocks.state.living import OVER
from deployments import catalogue
from deployments.cli import documents, output
from deployments.cli.context import AllTenants, Credentials, Flag, Json
from deployments.cli.glyphs import GLYPHS, STAGES
from deployments.cli.scope import Scope, open_scope, with_tenants
from deployments.cli.standing import NEXT, standing


def list(
    *,
    deleted: Flag = False,
    all_tenants: AllTenants = False,
    credentials: Credentials = None,
    json: Json = False,
) -> None:
    """List the VMs.

    Args:
        deleted: Also those that were deleted.
    """
    scope = open_scope(credentials)
    tenant = scope.tenant(all_tenants=all_tenants)
    plugs = scope.store.plugs.all()
    instances = scope.store.instances.list(tenant, deleted=deleted)
    found = with_tenants(
        scope,
        [documents.vm(instance, plugs.get(instance.id, ())) for instance in instances],
        all_tenants,
    )
    if json:
        output.document(found)
        return
    output.things(
        ("NAME", "STATUS", "TASK", "HOST", "FLAVOR", "IMAGE", "ADDRESSES"),
        (
            (
                item["name"],
                item["status"],
                item["task_state"],
                item["host"],
                item["flavor"],
                item["image"],
                _addresses(item),
            )
            for item in found
        ),
        found,
        "There is no VM yet. `fifty vm create NAME --image I --network N` makes one.",
    )


def _addresses(item: dict[str, Any]) -> str | None:
    shown = [plug["address"] for plug in item["addresses"] if plug["address"]]
    return ", ".join(shown) or None


def show(name: str, /, *, credentials: Credentials = None, json: Json = False) -> None:
    """Show a VM.

    Args:
        name: The VM's name or id.
    """
    scope = open_scope(credentials)
    found = _in_full(scope, name)
    if json:
        output.document(found)
    else:
        _show_vm(found)


def _in_full(scope: Scope, name: str) -> dict[str, Any]:
    """A VM; where nothing but its build is recorded yet, what that says."""
    try:
        return documents.vm_in_full(scope.store, scope.vm(name))
    except NotFound:
        build = scope.build(name)
        if build.state in OVER:
            raise
    return documents.vm_of_build(scope.store, build)


def _show_vm(found: dict[str, Any]) -> None:
    clocks, fault = found["clocks"], found["fault"]
    output.facts(
        (
            ("name", found["name"]),
            ("id", found["id"]),
            ("status", found["status"]),
            ("task", found["task_state"]),
            ("host", found["host"]),
            ("flavor", _flavor(found)),
            ("image", found["image"]),
            *(("address", _plug(plug)) for plug in found["addresses"]),
            *(("volume", _volume(volume)) for volume in found["volumes"]),
            ("snapshots", found["snapshots"] or None),
            ("log in", found["login_command"] if found["status"] == "ACTIVE" else None),
            *((f"to {name}", output.duration(clocks[f"{name}_s"])) for name in CLOCKS),
            ("generation", found["generation"]),
            ("request", found["request_id"]),
            ("created", found["created_at"]),
            ("console", found.get("console_log")),
            ("run", found["url"]),
        )
    )
    if fault:
        _show_fault(fault)
    if found["build"]:
        _show_standing(found["build"])


#: The three clocks, each from the request's acceptance.
CLOCKS = ("running", "booted", "login")


def _show_standing(build: dict[str, Any]) -> None:
    """How a build stands that is not complete: what it has made, and what can be done."""
    output.say(output.plain(build["words"]))
    if build["made"]:
        left = build["state"] == "needs_attention"
        output.say("What is left:" if left else "What it has made:")
    for item in build["made"]:
        output.say(f"  {item['step']:02d} · {output.plain(item['title'])}")
        for line in item["what"]:
            output.say(f"       {output.plain(line)}")
    width = max(map(len, build["next"].values()), default=0)
    for what, command in build["next"].items():
        output.say(f"  {output.plain(command).ljust(width)}    {NEXT[what]}")


def _show_fault(fault: dict[str, Any]) -> None:
    step = fault.get("step")
    output.say(f"fault{f' at step {step}' if step else ''}: {output.plain(fault.get('message'))}")
    for line in fault.get("details") or ():
        output.say(f"  - {output.plain(line)}")
    if fault.get("hint"):
        output.say(f"hint: {output.plain(fault['hint'])}")


def _flavor(found: dict[str, Any]) -> str | None:
    if found["flavor"] is None:
        return None
    flat = " flat" if found["disk_mode"] == "flat" else ""
    size = f"{found['vcpus']} vcpu, {found['ram_mib']} MiB, {found['disk_gib']} GiB{flat}"
    return f"{found['flavor']} ({size})"


def _volume(volume: dict[str, Any]) -> str:
    device = volume["device"] or "detached"
    return f"{device}, {volume['size_gib']} GiB, {volume['id']}"


def _plug(plug: dict[str, Any]) -> str:
    words = (plug["address"] or "none yet", "on", plug["network"])
    return " ".join((*words, f"({plug['mac'] or 'no MAC yet'}, {plug['tap']})"))


def steps(
    name: str,
    /,
    *,
    generation: Annotated[int | None, Parameter(show_default=False)] = None,
    changes: Flag = False,
    credentials: Credentials = None,
    json: Json = False,
) -> None:
    """Show how far each of the fifty steps of a VM is.

    Args:
        name: The VM's name or id; of a build that was refused, the name that it asked for.
        generation: An earlier build of the same VM (a rollback begins a new one).
        changes: Also what each step changed on the host, as commands.
    """
    scope = open_scope(credentials)
    store, build = scope.store, scope.build(name)
    entries = store.journal.entries(build.id, generation or build.generation)
    known = catalogue.read(settings().home, build.catalogue)
    found = documents.steps(build, entries, known)
    if json:
        output.document(found)
        return
    stage = None
    for item in found:
        if item["stage"] != stage:
            stage = item["stage"]
            output.say(f"{stage}  {STAGES.get(stage, '')}")
        _show_step(item, changes=changes)
    if not known:
        output.say("(`fifty steps` once, and the steps have their titles here)")
    _show_end(store, build)


def _show_step(item: dict[str, Any], *, changes: bool) -> None:
    attempts = f", {item['attempts']} attempts" if item["attempts"] > 1 else ""
    spent = output.duration(item["duration_s"])
    tail = f"{item['state']}{attempts}" + (f", {spent}" if spent else "")
    tail = "" if item["state"] == "pending" else f"  ({tail})"
    title = output.plain(item["title"])
    output.say(f"  {GLYPHS[item['state']]} {item['number']:02d} · {title}{tail}")
    if item["error"]:
        output.say(f"       {output.plain(item['error'].get('message'))}")
    if changes:
        for change in item["changes"]:
            output.say(f"       {output.plain(change['what'])}")
            output.say(f"       # {output.plain(change['command'])}")


def _show_end(store: StateStore, build: Build) -> None:
    if build.fault:
        _show_fault(build.fault)
    stands = standing(store, build)
    if stands:
        _show_standing({**stands, "made": []})

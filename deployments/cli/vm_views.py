"""`fifty vm list`, `show` and `steps`: what the state store knows, without Prefect."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from blocks.settings import settings
from blocks.state import Build, StateStore
from deployments import catalogue
from deployments.cli import documents, output
from deployments.cli.context import AllTenants, Credentials, Flag, Json
from deployments.cli.glyphs import GLYPHS, STAGES
from deployments.cli.scope import open_scope, with_tenants


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
    found = documents.vm_in_full(scope.store, scope.vm(name))
    if json:
        output.document(found)
    else:
        show_vm(found)


def show_vm(found: dict[str, Any]) -> None:
    """A VM for a person to read."""
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
            *(("volume", f"{v['device']}, {v['size_gib']} GiB") for v in found["volumes"]),
            ("log in", found["login_command"] if found["status"] == "ACTIVE" else None),
            *((f"to {name}", output.duration(clocks[f"{name}_s"])) for name in CLOCKS),
            ("generation", found["generation"]),
            ("request", found["request_id"]),
            ("created", found["created_at"]),
            ("console", found["console_log"]),
            ("run", found["url"]),
        )
    )
    if fault:
        show_fault(fault)


#: The three clocks, each from the request's acceptance.
CLOCKS = ("running", "booted", "login")


def show_fault(fault: dict[str, Any]) -> None:
    """Why a VM is in ERROR or needs attention."""
    step = fault.get("step")
    output.say(f"fault{f' at step {step}' if step else ''}: {output.plain(fault.get('message'))}")
    for line in fault.get("details") or ():
        output.say(f"  - {output.plain(line)}")
    if fault.get("hint"):
        output.say(f"hint: {output.plain(fault['hint'])}")


def _flavor(found: dict[str, Any]) -> str:
    size = f"{found['vcpus']} vcpu, {found['ram_mib']} MiB, {found['disk_gib']} GiB"
    return f"{found['flavor']} ({size})"


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
    _show_end(store, build, found)


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


def _show_end(store: StateStore, build: Build, found: Any) -> None:  # noqa: ANN401 - `list` is a command here
    name = output.plain(build.name)
    begun = [item["number"] for item in found if item["state"] not in ("pending", "undone")]
    under_way = build.state in ("building", "undoing", "deleting")
    if under_way and begun and store.leases.held(build.id) is None:
        output.say(f"No process works on it: it stopped at step {begun[-1]}.")
        if build.state == "building":
            output.say(f"  fifty vm resume {name}      go on")
        if build.state == "deleting":
            output.say(f"  fifty vm delete {name}      delete it to its end")
        else:
            output.say(f"  fifty vm rollback {name}    undo it")
    elif build.fault:
        show_fault(build.fault)

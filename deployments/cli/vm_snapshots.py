"""`fifty vm snapshot`: a VM's snapshots taken, listed, gone back to and deleted."""

from __future__ import annotations

from typing import Any

from blocks.resources import Snapshot
from deployments.cli import output
from deployments.cli.context import Credentials, Flag, Json, request_of, require_root
from deployments.cli.detaching import Detach, send
from deployments.cli.flow_runs import run_flow
from deployments.cli.scope import open_scope


def create(
    vm: str,
    name: str,
    /,
    *,
    memory: Flag = False,
    external: Flag = False,
    internal: Flag = False,
    quiesce: Flag = False,
    detach: Detach = False,
    credentials: Credentials = None,
    json: Json = False,
) -> None:
    """Take a snapshot of a VM's root disk, running or off.

    Its volumes are not a part of it. A VM whose disk is encrypted can have none.

    Args:
        vm: The VM's name or id.
        name: What the snapshot is to be called.
        memory: Also keep the memory of the guest, which has to run and to have no volumes.
        external: Freeze the disk's file, and go on in a new one (the default).
        internal: Keep the snapshot inside of the disk's file; of a guest that runs always with
            its memory. A VM has snapshots of one kind only.
        quiesce: Have the guest's agent flush and freeze its file systems meanwhile.
    """
    if internal and external:
        raise output.WrongUsage("--internal and --external are two kinds", "ask for one of them")
    request = request_of(
        credentials,
        vm=vm,
        name=name,
        kind="internal" if internal else None,
        memory=memory or None,
        quiesce=quiesce or None,
    )
    if _run("create-snapshot", request, vm, detach=detach, json=json):
        _tell(vm, name, credentials, json=json)


def list(
    vm: str,
    /,
    *,
    credentials: Credentials = None,
    json: Json = False,
) -> None:
    """List a VM's snapshots, oldest first.

    Args:
        vm: The VM's name or id.
    """
    scope = open_scope(credentials)
    found = scope.store.snapshots.of(scope.vm(vm).id)
    names = {one.id: one.name for one in found}
    if json:
        output.document([document(one) for one in found])
        return
    output.table(
        ("NAME", "KIND", "MEMORY", "QUIESCED", "STATUS", "TAKEN", "FROM", "CURRENT"),
        (
            (
                one.name,
                one.kind,
                "yes" if one.memory else "no",
                "yes" if one.quiesced else "no",
                one.status,
                f"{one.created_at:%Y-%m-%d %H:%M:%S}",
                names.get(one.parent_id or "", ""),
                "yes" if one.current else "",
            )
            for one in found
        ),
        f"{vm} has no snapshots.",
    )


def revert(
    vm: str,
    name: str,
    /,
    *,
    detach: Detach = False,
    credentials: Credentials = None,
    json: Json = False,
) -> None:
    """Bring a VM back to a snapshot; what was written to its disk since is discarded.

    With the memory in the snapshot the guest goes on as it was; else it starts from its disk if it
    ran. The snapshot stays, and so do later ones.

    Args:
        vm: The VM's name or id.
        name: The snapshot's name or id.
    """
    request = request_of(credentials, vm=vm, name=name)
    if _run("revert-snapshot", request, vm, detach=detach, json=json):
        _tell(vm, name, credentials, json=json)


def delete(
    vm: str,
    name: str,
    /,
    *,
    detach: Detach = False,
    credentials: Credentials = None,
    json: Json = False,
) -> None:
    """Delete a snapshot; what was written since stays, and the VM goes on meanwhile.

    Args:
        vm: The VM's name or id.
        name: The snapshot's name or id.
    """
    scope = open_scope(credentials)
    there = scope.store.snapshots.find(scope.vm(vm).id, name)
    request = request_of(credentials, vm=vm, name=name)
    if not _run("delete-snapshot", request, vm, detach=detach, json=json):
        return
    if json:
        output.document({"id": there.id, "name": there.name, "deleted": True})
    else:
        output.say(f"{output.plain(there.name)} is deleted.")


def document(snapshot: Snapshot) -> dict[str, Any]:
    """A snapshot as `--json` gives it."""
    return snapshot.model_dump(mode="json", exclude={"interfaces"})


def _run(flow: str, request: dict[str, Any], vm: str, *, detach: bool, json: bool) -> bool:
    """Run a flow to its end here, or have it run; whether there is an end to tell of."""
    if detach:
        send(flow, request, json=json, look=f"fifty vm snapshot list {vm}")
        return False
    require_root("a VM's snapshots")
    run_flow(flow.replace("-", "_"), request).require_success()
    return True


def _tell(vm: str, name: str, credentials: str | None, *, json: bool) -> None:
    scope = open_scope(credentials)
    instance = scope.vm(vm)
    found = document(scope.store.snapshots.find(instance.id, name))
    if json:
        output.document({**found, "vm_status": instance.status})
        return
    kept = "the disk and the memory" if found["memory"] else "the disk"
    output.facts(
        (
            ("snapshot", f"{found['name']} of {instance.name}"),
            ("holds", f"{kept}, {found['kind']}; not its volumes"),
            ("VM", f"{instance.name} is {instance.status}"),
        )
    )

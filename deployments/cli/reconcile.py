"""`fifty reconcile`: bring to an end what stopped, and back what this host has lost, now."""

from __future__ import annotations

from typing import Any

from blocks.errors import NotFound
from blocks.settings import settings
from blocks.state import Build, StateStore
from deployments.cli import output
from deployments.cli.context import Json, open_store, require_root
from deployments.cli.flow_runs import connect, run_flow


def reconcile(*, json: Json = False) -> int:
    """Bring every build that stopped to an end, as its --on-interrupt says.

    A build has stopped when no process works on it any more: it was killed, or the host
    was. Those that a process works on are left alone. After a reboot of the host its networks
    are made again, and the VMs that ran are started; a VM that is off without a reboot is
    recorded as SHUTOFF. Exits 1 where one is at no end, or could not be brought back.
    """
    require_root("reconciling")
    open_store()
    connect()
    # After connect(): it imports Prefect.
    from blocks.world import open_world
    from flows.restoration import RESTORATIONS
    from tasks.network_restore import lost_here
    from tasks.reconcile import find
    from tasks.vm_restore import powered_off

    world = open_world(settings())
    found = [(finding.build, finding.was) for finding in find(world, RESTORATIONS)]
    found += [(build, f"lost: {why[0]}") for _network, build, why in lost_here(world)]
    found += [(build, f"off: {state}") for build, state in powered_off(world)]
    done = run_flow("reconcile", {}) if found else None
    told = [_told(world.store, build, was) for build, was in found]
    if json:
        output.document({"reconciled": told, "url": done.url if done else None})
    else:
        output.table(
            ("KIND", "NAME", "STOPPED WHILE", "IS NOW"),
            ((item["kind"], item["name"], item["stopped_while"], item["state"]) for item in told),
            "No build had stopped.",
        )
    if done is None:
        return 0
    if not json and done.url:
        output.say(f"run  {output.plain(done.url)}")
    return 0 if done.error is None else 1


def _told(store: StateStore, build: Build, was: str) -> dict[str, Any]:
    after = store.builds.get(build.id)
    try:
        instance = store.instances.get(build.id) if build.catalogue == "vm" else None
    except NotFound:
        instance = None
    return {
        "kind": build.catalogue,
        "id": build.id,
        "name": build.name,
        "stopped_while": was,
        "state": after.state,
        "status": instance.status if instance else None,
        "fault": instance.fault if instance else after.fault,
    }

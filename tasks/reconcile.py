"""Finding the builds that stopped, and bringing each to one of its ends.

What decides is the state store: a build that is not at an end, and whose lease no living
process holds, has stopped. Prefect's task runs are never asked: their states lag behind.

What is complete is looked at on the host: a network of which something is missing, and a VM
that ran before the host's reboot, are brought back; a VM that is off is recorded so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from prefect import get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import BaseModel

from blocks.errors import FiftyError, NotFound
from blocks.resources import BuildReference, ReconcileRequest
from blocks.settings import settings
from blocks.state import Build, StateStore
from blocks.state.living import UNDER_WAY
from blocks.state.tables.base import now
from blocks.world import World, open_world
from tasks.ends import Kind
from tasks.finishing import finish
from tasks.network_build import NETWORK_KIND
from tasks.network_restore import lost_here, restore_ports
from tasks.restoring import Restoration, is_restored
from tasks.run import Plan
from tasks.segments import follow_hosts, follow_rules
from tasks.session import refused
from tasks.topology_artifact import publish_topologies
from tasks.upkeep import asked
from tasks.vm_restore import powered_off, record_power_off
from tasks.vm_session import VM_KIND

#: The kinds of things that a host can lose.
KINDS = {"vm": VM_KIND, "network": NETWORK_KIND}
FINISHER = "finish-build/fifty"
#: So long a dispatched run has until another one is made for the same stop.
_DISPATCH_EVERY_S = 600

#: Between a build's record and its lease there is a moment: a build so young has not stopped.
_JUST_ACCEPTED = timedelta(seconds=30)

#: How a build stands that could not be brought to one of its good ends.
_NO_END = (*UNDER_WAY, "needs_attention", "not brought back")

Finisher = Callable[[dict[str, str]], State[Any]]


@dataclass(frozen=True)
class Finding:
    """A build for which something is to be done.

    Attributes:
        was: What it was doing, or how it is lost.
    """

    build: Build
    was: str
    lost: bool = False


def find(world: World, restorations: Mapping[str, Restoration]) -> list[Finding]:
    """All that a reconcile would do something for: networks first, as VMs need them."""
    stopped = [Finding(build, build.state) for build in stopped_builds(world.store)]
    lost = [
        Finding(build, f"lost: {why[0]}", lost=True)
        for build in world.store.builds.complete()
        if world.store.leases.held(build.id) is None
        and (why := _why_lost(world, build, restorations))
    ]
    return sorted(stopped + lost, key=lambda finding: finding.build.catalogue != "network")


def _why_lost(world: World, build: Build, restorations: Mapping[str, Restoration]) -> list[str]:
    if build.catalogue not in restorations:
        return []
    kind, again = KINDS[build.catalogue], restorations[build.catalogue]
    try:
        return again.why_lost(kind, world, build)
    except NotFound:
        # Deleted since it was listed.
        return []


def stopped_builds(store: StateStore) -> list[Build]:
    """The builds that are not at an end, and that no living process works on.

    The leases of dead processes are forgotten: also those of builds that are at their end.
    """
    store.leases.forget_dead()
    return [
        build
        for build in store.builds.unfinished()
        if store.leases.held(build.id) is None and not _just_accepted(store, build)
    ]


def _just_accepted(store: StateStore, build: Build) -> bool:
    begun = store.journal.entries(build.id, build.generation)
    return not begun and now() - build.accepted_at < _JUST_ACCEPTED


def finish_stopped(
    plans: Mapping[str, tuple[Kind, Plan]],
    restorations: Mapping[str, Restoration],
    request: BaseModel | Mapping[str, Any],
) -> State[Any]:
    """Bring one build to an end, or back to this host.

    Args:
        plans: Each kind of thing, with the plan of its steps, by its catalogue's name.
        restorations: What brings each kind back.
        request: As the flow got it: not validated.

    Returns:
        As the flow that would have ended it returns; Completed where somebody else works on it.
    """
    try:
        reference = asked(BuildReference, request)
        world = open_world(settings())
        build = world.store.builds.get(str(reference.id))
        purpose = world.store.leases.held(build.id)
        if purpose is not None:
            return Completed(message=f"another run ({purpose}) is working on {build.name}")
        kind, plan = plans[build.catalogue]
        return finish(kind, world, build, plan, restorations.get(build.catalogue))
    except FiftyError as error:
        return refused(error)


def reconcile_all(
    request: BaseModel | Mapping[str, Any],
    restorations: Mapping[str, Restoration],
    finisher: Finisher,
) -> State[Any]:
    """Bring every build that stopped to an end, or have it brought there.

    Args:
        request: As the flow got it: not validated.
        restorations: What brings each kind of thing back that this host has lost.
        finisher: The flow that brings one build to its end, for a reconcile that does it here.

    Returns:
        Completed, or Failed where a build could not be brought to an end.
    """
    try:
        wanted = asked(ReconcileRequest, request)
        world = open_world(settings())
    except FiftyError as error:
        return refused(error)
    rows = []
    for finding in find(world, restorations):
        build = finding.build
        get_run_logger().info("%s %s: %s", build.catalogue, build.name, finding.was)
        # A network comes back in a moment, and has to be there before its VMs do.
        here = not wanted.dispatch or (build.catalogue == "network" and finding.lost)
        done = _ended(finding, finisher, world.store) if here else _dispatch(build)
        rows.append(
            {"kind": build.catalogue, "name": build.name, "stopped while": finding.was, **done}
        )
    rows += _tunnels(world)
    rows += _ports_here(world)
    rows += _power_states(world)
    publish_topologies(world.store)
    if not rows:
        return Completed(message="no build had stopped")
    create_table_artifact(
        key="reconcile", table=rows, description=f"{len(rows)} build(s) had stopped"
    )
    left = [row["name"] for row in rows if row["now"] in _NO_END]
    if left:
        return Failed(name="NeedsAttention", message=f"not at an end: {', '.join(left)}")
    words = ", ".join(f"{row['name']} is {row['now']}" for row in rows)
    return Completed(message=words)


def _tunnels(world: World) -> list[dict[str, Any]]:
    """Bring tunnels and rules to what is on other hosts now; what fails, the next one tries."""
    try:
        for what in follow_rules(world):
            get_run_logger().info("%s", what)
        followed = follow_hosts(world)
    except FiftyError as error:
        get_run_logger().warning("%s", error)
        return []
    return [
        {
            "kind": "network",
            "name": name,
            "stopped while": "complete",
            "now": "complete",
            "said": "its segment on this host was not as recorded",
        }
        for name in followed
    ]


def _ports_here(world: World) -> list[dict[str, Any]]:
    """Repair guests' ports in networks that other hosts anchor: nobody there can do it."""
    rows = []
    for network, build, why in lost_here(world):
        row = {"kind": build.catalogue, "name": build.name, "stopped while": f"lost: {why[0]}"}
        try:
            restore_ports(network, world)
            rows.append({**row, "now": build.state, "said": "its ports here are as recorded"})
        except FiftyError as error:
            get_run_logger().warning("%s: %s", error, "; ".join(error.details))
            rows.append({**row, "now": "not brought back", "said": str(error)})
    return rows


def _power_states(world: World) -> list[dict[str, Any]]:
    """Record which VMs are off; where libvirt does not answer, the next reconcile does."""
    rows = []
    try:
        for build, state in powered_off(world):
            get_run_logger().warning("%s is off: its domain is %s", build.name, state)
            if record_power_off(world, build):
                rows.append(
                    {
                        "kind": build.catalogue,
                        "name": build.name,
                        "stopped while": "complete",
                        "now": "SHUTOFF",
                        "said": f"its domain is {state}",
                    }
                )
    except FiftyError as error:
        get_run_logger().warning("which VMs are off is not known now: %s", error)
    return rows


def _ended(finding: Finding, finisher: Finisher, store: StateStore) -> dict[str, Any]:
    build = finding.build
    state = finisher({"id": build.id, "name": build.name})
    stands = store.builds.get(build.id)
    now_it_is = "not brought back" if is_restored(stands) else stands.state
    return {"now": now_it_is, "said": state.message or state.name}


def _dispatch(build: Build) -> dict[str, Any]:
    """Have a run of its own finish a build; while it waits for its turn, no second one."""
    turn = int(now().timestamp()) // _DISPATCH_EVERY_S
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(FINISHER)
        run = client.create_flow_run_from_deployment(
            deployment.id,
            parameters={"request": {"id": build.id, "name": build.name}},
            idempotency_key=f"finish-{build.id}-{build.updated_at.isoformat()}-{turn}",
        )
    return {"now": "handed over", "said": str(run.id)}

"""Steps 12 to 16, the scheduler: which host takes the instance."""

from __future__ import annotations

from typing import Any

from blocks.changes import record
from blocks.errors import NotFound, NoValidHost, Unsupported
from blocks.loading import load_block
from blocks.resources import Image, Instance, VmRequest
from blocks.scheduler_block import SchedulerBlock
from blocks.state import Build, StateStore
from blocks.state.tables.base import now
from blocks.world import BLOCK_NAME, World
from tasks.host_report import report_host
from tasks.placement import Demand, apply_filters, weigh
from tasks.vm_build import VM

step = VM.stage("S")


@step(12, "Collect host states")
def collect_hosts(store: StateStore, world: World) -> dict[str, Any]:
    """Ask this host's libvirt what it has, and read what the other hosts reported.

    Here Nova's scheduler asks Placement for candidates and reads the host states that the
    compute services report (`nova.scheduler.host_manager.HostManager`).
    """
    report_host(world)
    return {host.name: host.model_dump(mode="json") for host in store.hosts.list()}


@step(13, "Filter the hosts")
def filter_hosts(
    build: Build, instance: Instance, image: Image, request: VmRequest, store: StateStore
) -> dict[str, Any]:
    """Send every host through the filters; keep who refused which, and why.

    Here Nova's `FilterScheduler` does the same and, where nothing is left, says only
    "No valid host was found".
    """
    demand = Demand(
        flavor=instance.flavor,
        image=image,
        disk_gib=instance.flavor.disk_gib + sum(request.volumes),
        zone=request.zone,
        forced_host=request.host,
        beside=_hosts_of(store, instance, request.same_host),
        apart=_hosts_of(store, instance, request.different_host),
        time=now(),
    )
    result = apply_filters(store.hosts.list(), demand)
    store.builds.note(build.id, passed=result.passed, refused=result.refused)
    if not result.passed:
        raise NoValidHost(
            f"no host can take {instance.name}: {len(result.refused)} refused",
            details=result.refused or ["no host has ever reported"],
        )
    return {"passed": result.passed, "refused": result.refused, "counts": result.counts}


def _hosts_of(store: StateStore, instance: Instance, names: tuple[str, ...]) -> frozenset[str]:
    hosts = (store.instances.find(name, instance.tenant_id).host for name in names)
    return frozenset(host for host in hosts if host)


@step(14, "Weigh the hosts")
def weigh_hosts(build: Build, plan: dict[str, Any], store: StateStore) -> dict[str, float]:
    """Give every host that passed a weight: memory, processors, load, failures.

    Here Nova's weighers do so (`nova.scheduler.weights`), each normalised and times a
    multiplier from its configuration; here the multipliers are a Prefect block.
    """
    config = load_block(SchedulerBlock, BLOCK_NAME)
    passed = [host for host in store.hosts.list() if host.name in plan["passed"]]
    weights = weigh(passed, config.model_dump(include={"ram", "cpu", "load_average", "failures"}))
    store.builds.note(build.id, weights=weights, alternates=config.alternates)
    return dict(weights)


@step(15, "Select host and alternates")
def select_host(build: Build, plan: dict[str, Any], store: StateStore) -> dict[str, Any]:
    """Take the heaviest host, and keep the next ones for when it fails.

    Here Nova's scheduler returns a selection and its alternates
    (`nova.scheduler.manager.SchedulerManager._consume_selected_host`).
    """
    order = [name for name, _weight in plan["weights"]]
    hosts = order[: 1 + plan["alternates"]]
    if not hosts:
        raise NotFound("no host is left to select")
    store.builds.note(build.id, hosts=hosts, host=hosts[0])
    return {"host": hosts[0], "alternates": hosts[1:]}


@step(16, "Dispatch to the host")
def dispatch(build: Build, plan: dict[str, Any], store: StateStore) -> str:
    """Hand the build to its host: here, as the host is this one.

    Here Nova's conductor casts `build_and_run_instance` to the compute service of the
    host (`nova.conductor.manager.ComputeTaskManager.build_instances`).
    """
    host: str = plan["host"]
    if host != store.host:
        raise Unsupported(
            f"the host {host} was selected, and this process is on {store.host}",
            hint=f"run the build on {host}",
        )
    store.builds.note(build.id, dispatched_at=now().isoformat())
    record(f"Dispatched the build to {host} (this process)", f"fifty vm resume {build.name}")
    return host

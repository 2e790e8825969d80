"""What `--json` prints of the things in the state store; people's views are made from it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from blocks.errors import NotFound
from blocks.resources import (
    Clocks,
    FloatingIp,
    Image,
    Instance,
    InstanceStatus,
    Network,
    Router,
    RouterLeg,
    SecurityGroup,
)
from blocks.settings import settings
from blocks.state import Build, Entry, StateStore, StepState
from blocks.state.plugs import Plug
from deployments.catalogue import StepInfo
from deployments.cli import standing
from deployments.prefect_settings import run_url

_INSTANCE = {
    "id",
    "name",
    "status",
    "task_state",
    "host",
    "fault",
    "request_id",
    "generation",
    "flow_run_id",
    "clocks",
    "image_id",
    "tenant_id",
    "created_at",
    "updated_at",
}


def vm(instance: Instance, plugs: Sequence[Plug]) -> dict[str, Any]:
    """An instance, as an item of `fifty vm list`."""
    return {
        **instance.model_dump(mode="json", include=_INSTANCE),
        "flavor": instance.flavor.name,
        "image": instance.image_name,
        "addresses": [plug.model_dump() for plug in plugs],
    }


def vm_in_full(store: StateStore, instance: Instance) -> dict[str, Any]:
    """An instance as `fifty vm show` and `fifty vm create` give it."""
    try:
        user = store.images.get(instance.image_id).login_user
    except NotFound:
        user = None
    flavor = instance.flavor
    return {
        **vm(instance, store.plugs.of(instance.id)),
        "vcpus": flavor.vcpus,
        "ram_mib": flavor.ram_mib,
        "disk_gib": flavor.disk_gib,
        "disk_mode": flavor.disk_mode.value,
        "volumes": [
            volume.model_dump(mode="json", include={"id", "size_gib", "device", "path"})
            for volume in store.volumes.of(instance.id)
        ],
        "snapshots": len(store.snapshots.of(instance.id)),
        "login_user": user,
        "login_command": f"fifty vm ssh {instance.name}",
        "console_log": str(settings().instances / instance.id / "console.log"),
        "url": flow_run_url(instance.flow_run_id),
        "build": standing.standing_of(store, instance.id),
    }


def vm_of_build(store: StateStore, build: Build) -> dict[str, Any]:
    """A VM of which nothing but its build is recorded: it stopped before step 10."""
    return {
        **dict.fromkeys(_INSTANCE | {"flavor", "image"}),
        "id": build.id,
        "name": build.name,
        "status": InstanceStatus.BUILD.value,
        "addresses": [],
        "request_id": build.request_id,
        "generation": build.generation,
        "flow_run_id": build.flow_run_id,
        "clocks": dict.fromkeys(Clocks.model_fields),
        "fault": build.fault,
        "tenant_id": build.tenant_id,
        "created_at": build.accepted_at.isoformat(),
        "updated_at": build.updated_at.isoformat(),
        "volumes": [],
        "snapshots": 0,
        "url": flow_run_url(build.flow_run_id),
        "build": standing.standing(store, build),
    }


def flow_run_url(flow_run_id: str | None) -> str | None:
    """Where a flow run is seen in the Prefect UI; None where no server is known."""
    url = os.environ.get("PREFECT_API_URL") or settings().prefect_api_url
    return run_url(url, flow_run_id) if url and flow_run_id else None


def steps(
    build: Build, entries: Sequence[Entry], catalogue: Sequence[StepInfo]
) -> list[dict[str, Any]]:
    """A build's steps as `fifty vm steps` gives them, those not begun included."""
    journal = {entry.step: entry for entry in entries}
    known = {info.number: info for info in catalogue}
    return [
        _step(number, known.get(number), journal.get(number))
        for number in sorted({*journal, *known})
    ]


def _step(number: int, info: StepInfo | None, entry: Entry | None) -> dict[str, Any]:
    return {
        "number": number,
        "title": info.title if info else f"step {number}",
        "stage": info.stage if info else "",
        "state": (entry.state if entry else StepState.PENDING).value,
        "attempts": entry.attempts if entry else 0,
        "started_at": _time(entry.started_at) if entry else None,
        "finished_at": _time(entry.finished_at) if entry else None,
        "duration_s": elapsed(entry) if entry else None,
        "changes": [change.model_dump() for change in entry.changes] if entry else [],
        "error": entry.error if entry else None,
    }


def elapsed(entry: Entry) -> float | None:
    """Seconds from a step's start to its end; None where it has none, or an undo's end."""
    if entry.state not in (StepState.DONE, StepState.FAILED):
        return None
    if entry.started_at is None or entry.finished_at is None:
        return None
    return round((entry.finished_at - entry.started_at).total_seconds(), 3)


def _time(value: datetime | None) -> str | None:
    return value.isoformat() if value else None


def network(store: StateStore, thing: Network) -> dict[str, Any]:
    """A network with its subnets, as `fifty network list` and `show` give it."""
    return {
        **thing.model_dump(mode="json"),
        "subnets": [
            subnet.model_dump(mode="json", exclude={"network_id"})
            for subnet in store.networks.subnets(thing.id)
        ],
    }


def network_in_full(store: StateStore, thing: Network, tenant_id: str | None) -> dict[str, Any]:
    """A network with its subnets, its router and its ports.

    Args:
        store: The state store.
        thing: The network.
        tenant_id: Only this tenant's router and ports: others are in an external network
            too. None for all.
    """
    router_of = store.routers.of_network(thing.id)
    if router_of is not None and tenant_id not in (None, router_of.tenant_id):
        router_of = None
    return {
        **network(store, thing),
        "router": router_of.name if router_of else None,
        "ports": [
            {
                **port.model_dump(mode="json", include={"id", "kind", "device_id", "mac", "tap"}),
                "addresses": [str(fixed.address) for fixed in port.addresses],
            }
            for port in store.ports.list(network_id=thing.id)
            if tenant_id in (None, port.tenant_id)
        ],
    }


def router(thing: Router) -> dict[str, Any]:
    """A router with its interfaces and its gateway."""
    return {
        **thing.model_dump(
            mode="json",
            include={"id", "tenant_id", "name", "host", "snat", "routes", "floating_ips"},
        ),
        "interfaces": [_leg(leg) for leg in thing.legs],
        "gateway": _leg(thing.gateway) if thing.gateway else None,
    }


def _leg(leg: RouterLeg) -> dict[str, Any]:
    return {
        "network": leg.network.name,
        "network_id": leg.network.id,
        "address": ", ".join(str(fixed.address) for fixed in leg.port.addresses) or None,
        "mac": leg.port.mac,
        "port_id": leg.port.id,
    }


def floating_ip(store: StateStore, thing: FloatingIp) -> dict[str, Any]:
    """A floating IP with the names of its network and of the VM that it leads to."""
    port = store.ports.get(thing.port_id) if thing.port_id else None
    owner = port.device_id if port is not None else None
    return {
        **thing.model_dump(mode="json"),
        # As in OpenStack, which has no names for them either.
        "name": str(thing.address),
        "network": store.networks.get(thing.network_id).name,
        "router": store.routers.get(thing.router_id).name if thing.router_id else None,
        "vm": store.instances.get(owner).name if owner else None,
    }


def security_group(store: StateStore, thing: SecurityGroup) -> dict[str, Any]:
    """A security group with its rules and the ports that are in it."""
    names = {group.id: group.name for group in store.groups.list(thing.tenant_id)}
    return {
        **thing.model_dump(mode="json", exclude={"rules"}),
        "rules": [
            {**rule.model_dump(mode="json"), "remote_group": names.get(rule.remote_group_id or "")}
            for rule in thing.rules
        ],
        "ports": [port.id for port in store.groups.members(thing.id)],
    }


def image(thing: Image) -> dict[str, Any]:
    """An image."""
    return thing.model_dump(mode="json")

"""The floating IP that a VM is created with (step 34), and those that lead to it when it goes."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from blocks.changes import record
from blocks.errors import Conflict, QuotaExceeded
from blocks.fabric import NetworkFabric
from blocks.resources import FloatingIp, Network, Port, Router
from blocks.state import Build, Caller, StateStore
from tasks.floating_ip_routers import follow, let_go


def check_floating_ip(caller: Caller, network_ids: Sequence[str], store: StateStore) -> None:
    """Check that `give_floating_ip` would work now for a VM in these networks.

    Raises:
        Conflict: No router leads from the first of them to the outside.
        QuotaExceeded: The tenant may have no floating IP more.
    """
    if network_ids:
        _way_out(store, network_ids[0])
    used, limit = store.quota.standing(caller.tenant_id)["floating_ips"]
    if used >= limit:
        raise QuotaExceeded(f"the tenant has {used} of {limit} floating IPs")


def _way_out(store: StateStore, network_id: str) -> tuple[Router, Network]:
    router = store.routers.of_network(network_id)
    if router is None or router.gateway is None:
        name = store.networks.get(network_id).name
        raise Conflict(
            f"no router leads from {name!r} to the outside",
            hint=f"`fifty router add-interface ROUTER {name}` and `set-gateway`, or leave "
            "`floating` out",
        )
    return router, router.gateway.network


def _own_id(build: Build) -> str:
    return str(uuid.uuid5(uuid.UUID(build.id), "floating ip"))


def give_floating_ip(
    build: Build, port: Port, store: StateStore, fabric: NetworkFabric
) -> FloatingIp:
    """Take an address outside, and let it lead to a VM's port; again, the same one."""
    _router, outside = _way_out(store, port.network_id)
    floating = store.floating_ips.create(_own_id(build), port.tenant_id, outside.id)
    if store.floating_ips.attach(floating.id, port.id):
        record(
            f"Floating IP {floating.address} leads to {build.name}",
            f"openstack server add floating ip {build.name} {floating.address}",
        )
    return follow(floating.id, store, fabric)


def take_floating_ips(
    build: Build, ports: Sequence[Port], store: StateStore, fabric: NetworkFabric
) -> None:
    """Detach what leads to a VM's ports; the one that came with the VM is given back.

    One that was attached to another VM since stays there.
    """
    let_go({port.id for port in ports}, store, fabric)
    own = _own_id(build)
    for floating in store.floating_ips.list():
        if floating.id == own and floating.port_id is None and store.floating_ips.delete(own):
            record(
                f"Gave the address {floating.address} back",
                f"openstack floating ip delete {floating.address}",
            )

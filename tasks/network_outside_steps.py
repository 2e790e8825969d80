"""The steps that connect a new network to the outside: the seed's last three commands.

An external network that is made here is a network like any other afterwards: it has a
build of its own, complete, by which it is shown, restored and deleted.
"""

from __future__ import annotations

from typing import Any

from blocks.changes import record
from blocks.errors import NotFound
from blocks.fabric import NetworkFabric
from blocks.fabric.segments.underlay import segment_mtu
from blocks.resources import Network, NetworkRequest, NetworkType, Router
from blocks.state import Build, Caller, StateStore, StepState
from blocks.world import World
from tasks.network_addresses import planned_subnet
from tasks.network_build import NETWORK
from tasks.router_legs import clear_gateway, set_gateway

step = NETWORK.stage("N")

#: The steps of an external network's own build, which were taken here.
_TAKEN = (1, 2, 3, 4, 5)


def _made_here(build: Build, plan: dict[str, Any]) -> bool:
    """Whether an external network was made by this build, and the build has to take it back.

    One that is there when the tenant's network is deleted stays: others may want it.
    """
    return bool(plan.get("external_is_new")) and build.state != "deleting"


def forget_external_network(
    build: Build, plan: dict[str, Any], external_id: str, store: StateStore
) -> None:
    """Forget the external network, if this build never came to its end."""
    if _made_here(build, plan) and store.networks.delete(external_id):
        record("Forgot the external network", f"openstack network delete {external_id}")


@step(8, "Create the external network", undo=forget_external_network)
def create_external_network(
    build: Build,
    caller: Caller,
    request: NetworkRequest,
    external_id: str,
    world: World,
    store: StateStore,
    fabric: NetworkFabric,
) -> str | None:
    """Record the external network, where one is asked for.

    The seed's `net-create public --router:external=true`.
    """
    form = request.create_external
    if form is None:
        return None
    store.builds.note(build.id, external_is_new=True)
    here = world.settings
    network = store.networks.create(
        Network(
            id=external_id,
            tenant_id=caller.tenant_id,
            name=form.name,
            type=NetworkType.FLAT,
            driver=fabric.choose_driver(NetworkType.FLAT),
            physical_bridge=form.physical_bridge,
            mtu=segment_mtu(NetworkType.FLAT, here.underlay_ip, here.underlay_mtu),
            external=True,
            outside=form.outside,
            zone=0,
            anchor_host=store.host,
        )
    )
    record(
        f"Recorded the external network {network.name}",
        f"openstack network create --external {network.name}",
    )
    return network.id


def remove_external_network(
    build: Build,
    plan: dict[str, Any],
    external_id: str,
    store: StateStore,
    fabric: NetworkFabric,
) -> None:
    """Take the external network's bridge and far end away, and its build's record."""
    if not _made_here(build, plan):
        return
    try:
        network = store.networks.get(external_id)
    except NotFound:
        return
    store.networks.refuse_if_used(external_id)
    fabric.remove_outside(network)
    fabric.remove_segment(network)
    _end_own_build(external_id, store)


@step(9, "Create the external subnet", undo=remove_external_network)
def create_external_subnet(
    build: Build,
    caller: Caller,
    request: NetworkRequest,
    external_id: str,
    store: StateStore,
    fabric: NetworkFabric,
) -> str | None:
    """Record the external network's subnet, without DHCP, and make it on this host.

    The seed's "which logically represents the physical network of our data center"; of its
    addresses only the pool's are given to routers and floating IPs.
    """
    form = request.create_external
    if form is None:
        return None
    network = store.networks.get(external_id)
    subnet = planned_subnet(external_id, form)
    store.networks.add_subnet(subnet)
    record(
        f"Recorded the external subnet {subnet.cidr}, gateway {subnet.gateway}",
        f"openstack subnet create --network {network.name} --no-dhcp "
        f"--subnet-range {subnet.cidr} {network.name}",
    )
    fabric.check(network)
    fabric.realize_segment(network)
    fabric.realize_outside(network, subnet)
    _give_own_build(build, caller, request, network, store)
    return subnet.id


def _give_own_build(
    build: Build, caller: Caller, request: NetworkRequest, network: Network, store: StateStore
) -> None:
    """Record the external network's build as if it had been asked for by itself."""
    form = request.create_external
    values = form.model_dump(mode="json", exclude_unset=True) if form else {}
    own, _new = store.builds.open(
        build_id=network.id,
        catalogue="network",
        name=network.name,
        credentials=build.credentials,
        request={**values, "type": "flat", "external": True, "credentials": build.credentials},
        request_id=f"{build.id} external",
        flow_run_id=None,
        policy=build.policy,
    )
    facts = {"caller": build.plan["caller"], "network": network.model_dump(mode="json")}
    store.builds.note(own.id, **facts)
    for number in _TAKEN:
        store.journal.intend(own.id, own.generation, number, store.host)
        store.journal.close(own.id, own.generation, number, StepState.DONE)
    store.builds.update(own.id, tenant_id=caller.tenant_id, state="complete")


def _end_own_build(external_id: str, store: StateStore) -> None:
    try:
        own = store.builds.get(external_id)
    except NotFound:
        return
    for entry in store.journal.entries(own.id, own.generation):
        if entry.state is not StepState.UNDONE:
            store.journal.close(own.id, own.generation, entry.step, StepState.UNDONE)
    store.builds.update(own.id, state="undone")


def clear_new_gateway(
    build: Build,
    plan: dict[str, Any],
    router: Router | None,
    store: StateStore,
    fabric: NetworkFabric,
) -> None:
    """Clear the gateway that this build set, if it never came to its end."""
    if router is not None and plan.get("gateway_is_new") and build.state != "deleting":
        clear_gateway(router, store, fabric)


@step(10, "Set the router's gateway", undo=clear_new_gateway)
def set_router_gateway(
    build: Build,
    caller: Caller,
    request: NetworkRequest,
    router: Router | None,
    store: StateStore,
    fabric: NetworkFabric,
) -> str | None:
    """Give the router an address of the external network, and SNAT behind it.

    The seed's "connect the router to the external network".
    """
    form = request.create_external
    name = form.name if form else request.external_network
    if router is None or name is None:
        return None
    if router.gateway is None:
        store.builds.note(build.id, gateway_is_new=True)
    outside = store.networks.find(caller.tenant_id, name)
    set_gateway(router, outside, store, fabric)
    return outside.id

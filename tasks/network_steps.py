"""The steps that make a network, after the seed's seven commands.

Tenant network, subnet, router, interface, external network, external subnet, gateway: a
tenant network takes them all; an external network is the same without DHCP and router.
"""

from __future__ import annotations

import uuid
from typing import Any

from blocks.changes import record
from blocks.errors import NotFound
from blocks.fabric import NetworkFabric
from blocks.fabric.segments.underlay import segment_mtu
from blocks.resources import (
    Network,
    NetworkRequest,
    NetworkType,
    PortKind,
    Router,
    Subnet,
)
from blocks.state import Build, Caller, StateStore
from blocks.world import World
from tasks.access import admitted
from tasks.draft import describe_all, refusal, valid_part
from tasks.network_addresses import planned_subnet
from tasks.network_build import NETWORK
from tasks.network_request import problems
from tasks.router_legs import add_interface, refresh_router
from tasks.segments import realize_here

step = NETWORK.stage("N")


@step(1, "Validate the network request")
def validate_network(
    build: Build, form: dict[str, Any], store: StateStore, fabric: NetworkFabric
) -> str:
    """Look at the whole request, and answer once for everything that is wrong with it.

    A type of network that this host cannot do is refused here, before there is anything.
    """
    caller = admitted(build, store, "network:create")
    wrong = describe_all(NetworkRequest, form)
    request = valid_part(NetworkRequest, form)
    if request is not None:
        wrong += problems(request, caller, store)
    if wrong or request is None:
        raise refusal("network", wrong)
    fabric.choose_driver(NetworkType(request.type))
    return "valid"


def forget_network(build: Build, store: StateStore) -> None:
    """Forget the network with its subnet, its segment id and its DHCP port."""
    if store.networks.delete(build.id):
        record(f"Forgot the network {build.name}", f"openstack network delete {build.id}")


@step(2, "Create the network", undo=forget_network)
def create_network_record(
    build: Build,
    caller: Caller,
    request: NetworkRequest,
    world: World,
    store: StateStore,
    fabric: NetworkFabric,
) -> str:
    """Record the network: its driver, its conntrack zone and its segment id chosen.

    The seed's "create a private network for this tenant". Here Neutron's ML2 plugin
    allocates the segment (`neutron.plugins.ml2.managers.TypeManager`) and asks its
    mechanism drivers in turn (`MechanismManager.bind_port`).
    """
    kind = NetworkType(request.type)
    here = world.settings
    network = store.networks.create(
        Network(
            id=build.id,
            tenant_id=caller.tenant_id,
            name=request.name,
            type=kind,
            driver=fabric.choose_driver(kind),
            segment_id=request.segment,
            physical_interface=request.physical_interface,
            physical_bridge=request.physical_bridge,
            mtu=segment_mtu(kind, here.underlay_ip, here.underlay_mtu),
            external=request.external,
            outside=request.outside,
            zone=0,
            anchor_host=store.host,
            port_security=request.port_security,
        )
    )
    store.builds.note(build.id, network=network.model_dump(mode="json"))
    words = f"segment {network.segment_id}, by {network.driver}" if network.segment_id else ""
    record(
        f"Recorded the {kind} network {network.name}" + (f", {words}" if words else ""),
        f"openstack network create --provider-network-type {kind} {network.name}",
    )
    return network.id


def forget_dhcp_port(build: Build, store: StateStore) -> None:
    """Forget the DHCP port; the subnet goes with the network."""
    for port in store.ports.list(kind=PortKind.DHCP, network_id=build.id):
        store.ports.delete(port.id)


@step(3, "Create the subnet", undo=forget_dhcp_port)
def create_subnet_record(build: Build, request: NetworkRequest, store: StateStore) -> str:
    """Record the subnet, and the port that its DHCP and metadata server will have.

    The seed's "subnet is the place where the IP network segment is actually configured".
    """
    subnet = planned_subnet(build.id, request)
    store.networks.add_subnet(subnet)
    if not request.external:
        port_id = str(uuid.uuid5(uuid.UUID(build.id), "port dhcp"))
        store.ports.plan(
            port_id=port_id,
            tenant_id=store.networks.get(build.id).tenant_id,
            network_id=build.id,
            kind=PortKind.DHCP,
            device_id=build.id,
            host=store.host,
        )
        store.ports.give_mac(port_id)
        store.ports.give_address(port_id, subnet.id)
    record(
        f"Recorded the subnet {subnet.cidr}, gateway {subnet.gateway}",
        f"openstack subnet create --network {build.name} --subnet-range {subnet.cidr} {build.name}",
    )
    return subnet.id


def remove_segment(network: Network, fabric: NetworkFabric) -> None:
    """Remove the bridge and the tunnel."""
    fabric.remove_segment(network)


@step(4, "Realize the segment", undo=remove_segment)
def realize_segment(
    network: Network, world: World, store: StateStore, fabric: NetworkFabric
) -> str:
    """Make the network's bridge and tunnel on this host, which anchors it."""
    fabric.check(network)
    realize_here(network, world)
    return fabric.segment_bridge(network)


def stop_serving(network: Network, fabric: NetworkFabric) -> None:
    """Stop DHCP and metadata, or take the far end of an external network away."""
    if network.external:
        fabric.remove_outside(network)
    else:
        fabric.stop_metadata(network)
        fabric.stop_dhcp(network)


@step(5, "Serve the subnet", undo=stop_serving)
def serve_subnet(
    network: Network, subnet: Subnet, store: StateStore, fabric: NetworkFabric
) -> None:
    """Serve DHCP and metadata; for an external network, make what it leads to."""
    if network.external:
        fabric.realize_outside(network, subnet)
        return
    [port] = store.ports.list(kind=PortKind.DHCP, network_id=network.id)
    fabric.serve_dhcp(network, subnet, port)
    fabric.serve_metadata(network)


def forget_new_router(build: Build, plan: dict[str, Any], store: StateStore) -> None:
    """Forget the router, if this build made it and never came to its end.

    A router that is there when its first network is deleted stays: others may want it.
    """
    if plan.get("router_is_new") and build.state != "deleting":
        store.routers.delete(plan["router"])


@step(6, "Create the router", undo=forget_new_router)
def create_router_record(
    build: Build, caller: Caller, request: NetworkRequest, store: StateStore
) -> str | None:
    """Record the router that the network is to be attached to, or find it.

    The seed's "create a router for this tenant to access the Internet".
    """
    if request.router is None:
        return None
    try:
        router_id = store.routers.find(caller.tenant_id, request.router).id
        store.builds.note(build.id, router=router_id)
    except NotFound:
        router_id = str(uuid.uuid5(uuid.UUID(build.id), "router"))
        store.builds.note(build.id, router=router_id, router_is_new=True)
    router = Router(id=router_id, tenant_id=caller.tenant_id, name=request.router, host=store.host)
    if store.routers.create(router):
        record(f"Recorded the router {router.name}", f"openstack router create {router.name}")
    return router_id


def detach_subnet(network: Network, store: StateStore, fabric: NetworkFabric) -> None:
    """Take the router's leg out of the network."""
    router = store.routers.of_network(network.id)
    for port in store.ports.list(kind=PortKind.ROUTER_INTERFACE, network_id=network.id):
        store.ports.delete(port.id)
    if router is not None:
        refresh_router(router.id, store, fabric)


@step(7, "Attach the subnet to the router", undo=detach_subnet)
def attach_subnet(
    build: Build,
    network: Network,
    subnet: Subnet,
    router: Router | None,
    store: StateStore,
    fabric: NetworkFabric,
) -> str | None:
    """Give the router a leg in the network, with the gateway's address.

    The seed's "connect the private network to the router".
    """
    if router is None:
        return None
    add_interface(router, network, subnet, store)
    refresh_router(router.id, store, fabric)
    return router.id

"""A router's legs and gateway: recorded, then realized to be what is recorded."""

from __future__ import annotations

import uuid

from blocks.errors import Conflict, InvalidRequest
from blocks.fabric import NetworkFabric
from blocks.resources import Network, Port, PortKind, Router, Subnet
from blocks.state import StateStore


def refresh_router(router_id: str, store: StateStore, fabric: NetworkFabric) -> None:
    """Make a router's namespace be what is recorded; gone where it has no legs at all."""
    fabric.follow_router(router_id, lambda: store.routers.get(router_id))


def add_interface(router: Router, network: Network, subnet: Subnet, store: StateStore) -> Port:
    """Record a router's leg in a network, with the gateway's address.

    Raises:
        Conflict: The network has no gateway address, or another router has it.
    """
    if subnet.gateway is None:
        raise Conflict(f"the network {network.name!r} has no gateway address")
    other = store.routers.of_network(network.id)
    if other is not None and other.id != router.id:
        raise Conflict(f"{network.name!r} is attached to the router {other.name!r} already")
    port_id = str(uuid.uuid5(uuid.UUID(router.id), f"interface {network.id}"))
    store.ports.plan(
        port_id=port_id,
        tenant_id=router.tenant_id,
        network_id=network.id,
        kind=PortKind.ROUTER_INTERFACE,
        device_id=router.id,
        host=store.host,
    )
    store.ports.give_mac(port_id)
    store.ports.give_gateway(port_id, subnet.id)
    return store.ports.get(port_id)


def remove_interface(router: Router, network: Network, store: StateStore) -> bool:
    """Forget a router's leg in a network; False where it has none."""
    legs = [
        port
        for port in store.ports.list(kind=PortKind.ROUTER_INTERFACE, network_id=network.id)
        if port.device_id == router.id
    ]
    for port in legs:
        store.ports.delete(port.id)
    return bool(legs)


def clear_gateway(router: Router, store: StateStore, fabric: NetworkFabric) -> None:
    """Take a router's gateway away, record and leg."""
    if router.gateway is not None:
        fabric.disconnect_outside(router)
    # Also one that whoever set it was stopped over, before it had an address.
    for port in store.ports.of_device(router.id):
        if port.kind is PortKind.ROUTER_GATEWAY:
            store.ports.delete(port.id)
    refresh_router(router.id, store, fabric)


def set_gateway(
    router: Router,
    outside: Network,
    store: StateStore,
    fabric: NetworkFabric,
    *,
    snat: bool | None = None,
) -> None:
    """Give a router its gateway in an external network.

    Args:
        router: The router.
        outside: The external network.
        store: The state store.
        fabric: This host's networking.
        snat: Whether what goes out gets the gateway's address; None: as it is.

    Raises:
        Conflict: It has one in another network.
        InvalidRequest: The network is not external.
    """
    if not outside.external:
        raise InvalidRequest(
            f"{outside.name!r} is not an external network",
            hint="`fifty network list` tells which networks are external",
        )
    if router.gateway is not None and router.gateway.network.id != outside.id:
        raise Conflict(
            f"{router.name!r} has its gateway in {router.gateway.network.name!r}",
            hint=f"`fifty router clear-gateway {router.name}` first",
        )
    [subnet] = store.networks.subnets(outside.id)
    if snat is not None:
        store.routers.set_snat(router.id, snat=snat)
    port_id = str(uuid.uuid5(uuid.UUID(router.id), f"gateway {outside.id}"))
    store.ports.plan(
        port_id=port_id,
        tenant_id=router.tenant_id,
        network_id=outside.id,
        kind=PortKind.ROUTER_GATEWAY,
        device_id=router.id,
        host=store.host,
    )
    store.ports.give_mac(port_id)
    store.ports.give_address(port_id, subnet.id)
    refresh_router(router.id, store, fabric)

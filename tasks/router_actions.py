"""The changes to a router: each looks at all that could be in its way before it begins."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Network

from blocks.changes import record
from blocks.errors import Conflict, InvalidRequest, NotFound
from blocks.resources import Network, Route, Router, RouterRequest, Subnet
from blocks.state import Caller, StateStore
from blocks.world import World
from tasks.policy import allows
from tasks.router_legs import (
    add_interface,
    clear_gateway,
    refresh_router,
    remove_interface,
    set_gateway,
)

_DEFAULT_ROUTE = IPv4Network("0.0.0.0/0")
_NEEDS_NETWORK = ("add-interface", "remove-interface", "set-gateway")


def wrong(request: RouterRequest) -> Sequence[str]:
    """What of a router request does not go together, a line each."""
    lines = []
    action = request.action
    if action in _NEEDS_NETWORK and request.network is None:
        lines.append(f"network: {action} needs one")
    if action not in _NEEDS_NETWORK and request.network is not None:
        lines.append(f"network: {action} takes none")
    if action == "set-routes" and request.routes is None:
        lines.append("routes: set-routes needs them; an empty list removes all")
    if action != "set-routes" and request.routes is not None:
        lines.append(f"routes: {action} takes none")
    if action != "set-gateway" and request.snat is not None:
        lines.append(f"snat: {action} does not set it")
    return lines


def find_router(store: StateStore, caller: Caller, name: str) -> Router:
    """The caller's router of that name or id; for an admin any tenant's by its id.

    Raises:
        NotFound: There is none that the caller may see.
    """
    try:
        return store.routers.find(caller.tenant_id, name)
    except NotFound:
        if allows(caller, "any:foreign"):
            for router in store.routers.list():
                if router.id == name:
                    return router
        raise


def _create(world: World, caller: Caller, request: RouterRequest) -> str:
    router = Router(
        id=str(uuid.uuid4()),
        tenant_id=caller.tenant_id,
        name=request.name,
        host=world.store.host,
    )
    world.store.routers.create(router)
    record(f"Recorded the router {router.name}", f"openstack router create {router.name}")
    return f"created the router {request.name}"


def _add_interface(world: World, caller: Caller, request: RouterRequest) -> str:
    store = world.store
    router = find_router(store, caller, request.name)
    network = store.networks.find(router.tenant_id, request.network or "")
    if network.external or network.tenant_id != router.tenant_id:
        raise InvalidRequest(
            f"{network.name!r} is not one of the tenant's own networks",
            hint="an external network is where a router has its gateway (`fifty router "
            "set-gateway`)",
        )
    subnet = _subnet(store, network)
    _refuse_overlap(router, network, subnet)
    add_interface(router, network, subnet, store)
    refresh_router(router.id, store, world.fabric)
    return f"{network.name} is attached to {router.name}"


def _remove_interface(world: World, caller: Caller, request: RouterRequest) -> str:
    store = world.store
    router = find_router(store, caller, request.name)
    network = store.networks.find(router.tenant_id, request.network or "")
    if network.external:
        raise InvalidRequest(
            f"{network.name!r} is external: there is the gateway of a router",
            hint=f"`fifty router clear-gateway {router.name}` removes it",
        )
    store.routers.refuse_if_leg_used(router.id, network.id)
    removed = remove_interface(router, network, store)
    refresh_router(router.id, store, world.fabric)
    words = "is detached from" if removed else "was not attached to"
    return f"{network.name} {words} {router.name}"


def _set_gateway(world: World, caller: Caller, request: RouterRequest) -> str:
    store = world.store
    router = find_router(store, caller, request.name)
    outside = store.networks.find(router.tenant_id, request.network or "")
    if outside.external:
        _refuse_overlap(router, outside, _subnet(store, outside))
    set_gateway(router, outside, store, world.fabric, snat=request.snat)
    snat = store.routers.get(router.id).snat
    how = "with SNAT" if snat else "without SNAT"
    return f"{router.name} has its gateway in {outside.name}, {how}"


def _clear_gateway(world: World, caller: Caller, request: RouterRequest) -> str:
    router = find_router(world.store, caller, request.name)
    if router.gateway is not None:
        world.store.routers.refuse_if_leg_used(router.id, router.gateway.network.id)
    clear_gateway(router, world.store, world.fabric)
    return f"{router.name} has no gateway"


def _set_routes(world: World, caller: Caller, request: RouterRequest) -> str:
    store = world.store
    router = find_router(store, caller, request.name)
    routes = [
        Route(destination=each.destination, nexthop=each.nexthop) for each in request.routes or ()
    ]
    lines = wrong_routes(router, routes)
    if lines:
        raise InvalidRequest(
            lines[0] if len(lines) == 1 else f"{len(lines)} things are wrong with these routes",
            hint=f"`fifty router show {router.name}` tells what it is connected to",
            details=lines if len(lines) > 1 else (),
        )
    if store.routers.set_routes(router.id, routes):
        words = ", ".join(f"{route.destination} by {route.nexthop}" for route in routes)
        record(
            f"Set the routes of {router.name}: {words or 'none'}", f"openstack router set {words}"
        )
    refresh_router(router.id, store, world.fabric)
    return f"{router.name} has {len(routes)} route(s)"


def wrong_routes(router: Router, routes: Sequence[Route]) -> list[str]:
    """What is wrong with routes for a router, a line each (Neutron's `InvalidRoutes`)."""
    legs = (*router.legs, *((router.gateway,) if router.gateway else ()))
    own = {fixed.address for leg in legs for fixed in leg.port.addresses}
    lines = []
    seen: set[IPv4Network] = set()
    for route in routes:
        near = [leg.subnet.cidr for leg in legs if route.nexthop in leg.subnet.cidr]
        if not near:
            lines.append(f"routes: {route.nexthop} is in none of the router's networks")
        elif route.nexthop in own:
            lines.append(f"routes: {route.nexthop} is the router itself")
        elif any(route.nexthop in (cidr.network_address, cidr.broadcast_address) for cidr in near):
            lines.append(f"routes: {route.nexthop} is not an address for a host of {near[0]}")
        if route.destination == _DEFAULT_ROUTE:
            lines.append("routes: the default route is that of the gateway")
        if route.destination in {leg.subnet.cidr for leg in legs}:
            lines.append(f"routes: the router is in {route.destination} itself")
        if route.destination in seen:
            lines.append(f"routes: {route.destination} is given twice")
        seen.add(route.destination)
    return lines


def _delete(world: World, caller: Caller, request: RouterRequest) -> str:
    router = find_router(world.store, caller, request.name)
    if router.legs:
        names = ", ".join(leg.network.name for leg in router.legs)
        raise Conflict(
            f"the router {router.name!r} is attached to {names}",
            hint=f"`fifty router remove-interface {router.name} NETWORK` first",
        )
    clear_gateway(router, world.store, world.fabric)
    world.fabric.remove_router(router.id)
    world.store.routers.delete(router.id)
    return f"{router.name} is deleted"


def _subnet(store: StateStore, network: Network) -> Subnet:
    subnets = store.networks.subnets(network.id)
    if not subnets:
        raise Conflict(f"{network.name!r} has no subnet", hint="it is being made, or deleted")
    return subnets[0]


def _refuse_overlap(router: Router, network: Network, subnet: Subnet) -> None:
    for leg in (*router.legs, *((router.gateway,) if router.gateway else ())):
        if leg.network.id != network.id and leg.subnet.cidr.overlaps(subnet.cidr):
            raise Conflict(
                f"{subnet.cidr} overlaps {leg.subnet.cidr} of {leg.network.name!r}",
                hint="a router tells its networks apart by their addresses: use another router",
            )


ACTIONS: Mapping[str, Callable[[World, Caller, RouterRequest], str]] = {
    "create": _create,
    "add-interface": _add_interface,
    "remove-interface": _remove_interface,
    "set-gateway": _set_gateway,
    "clear-gateway": _clear_gateway,
    "set-routes": _set_routes,
    "delete": _delete,
}

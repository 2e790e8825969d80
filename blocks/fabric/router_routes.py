"""A router's routes: to the metadata, to everything else, and those it was given (ip-route(8)).

The routes it was given carry a protocol number of their own, so that exactly those that
are no longer wanted are taken away, and a metric, so that none of them ever takes the
place of the route to a network of the router's, or of the default route.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from blocks import changes, marks
from blocks.errors import InvalidRequest
from blocks.fabric import links
from blocks.fabric.dnsmasq_config import METADATA_ADDRESS
from blocks.resources import Router, RouterLeg

_SCOPE_LINK = 253
_MAIN = 254
#: Above those that iproute2 knows by name; `ip route show proto 150` lists them.
_PROTOCOL = 150
_METRIC = 100
_NO_ROUTE = 3


def wanted(router: Router, *, connected: bool) -> dict[IPv4Network, IPv4Address]:
    """The routes that a router was given, as far as their next hop can be reached.

    Args:
        router: The router.
        connected: Whether its gateway leg is there; without it, what leads over the
            external network waits.

    Raises:
        InvalidRequest: A route whose next hop is in none of the router's networks, or is
            the router itself or nobody's, a second one to the same destination, or a
            default route.
    """
    chosen: dict[IPv4Network, IPv4Address] = {}
    outer = router.gateway.subnet.cidr if router.gateway else None
    for route in router.routes:
        inside = any(route.nexthop in leg.subnet.cidr for leg in router.legs)
        outside = outer is not None and route.nexthop in outer
        if not (inside or outside):
            raise InvalidRequest(
                f"no network of the router {router.name} leads to {route.nexthop}, "
                f"the next hop to {route.destination}",
                hint="add an interface in its network first, or remove the route",
            )
        if route.nexthop in _nobodys(router):
            raise InvalidRequest(
                f"the next hop to {route.destination}, {route.nexthop}, is the router "
                f"{router.name} itself, or no host's address",
                hint="give the address of the other router",
            )
        if route.destination.prefixlen == 0:
            raise InvalidRequest(
                f"the default route of the router {router.name} is that of its gateway",
                hint="set the gateway instead of a route to 0.0.0.0/0",
            )
        if chosen.setdefault(route.destination, route.nexthop) != route.nexthop:
            raise InvalidRequest(
                f"the router {router.name} has two routes to {route.destination}",
                hint="leave one of them",
            )
        if not inside and not connected:
            del chosen[route.destination]
    return chosen


def _nobodys(router: Router) -> set[IPv4Address]:
    legs = [*router.legs, *([router.gateway] if router.gateway else [])]
    own = {fixed.address for leg in legs for fixed in leg.port.addresses}
    ends = {leg.subnet.cidr.network_address for leg in legs}
    return own | ends | {leg.subnet.cidr.broadcast_address for leg in legs}


def set_routes(ipr: IPRoute, routes: dict[IPv4Network, IPv4Address], namespace: str) -> None:
    """Have exactly these routes, besides those that belong to the legs."""
    there = _given(ipr)
    for destination, nexthop in routes.items():
        if there.get(destination) != nexthop:
            ipr.route("replace", dst=str(destination), gateway=str(nexthop), **_ours())
            changes.record(
                f"Led {destination} to {nexthop}",
                [
                    *("ip", "-n", namespace, "route", "replace", str(destination)),
                    *("via", str(nexthop), "metric", str(_METRIC), "proto", str(_PROTOCOL)),
                ],
            )
    for destination in there.keys() - routes.keys():
        _without(ipr, destination, namespace)


def differences(ipr: IPRoute, routes: dict[IPv4Network, IPv4Address], namespace: str) -> list[str]:
    """What of the routes that a router was given is not as it should be, in words."""
    there = _given(ipr)
    wrong = [
        f"{namespace} leads {destination} to {there.get(destination, 'nowhere')}, not {nexthop}"
        for destination, nexthop in routes.items()
        if there.get(destination) != nexthop
    ]
    unwanted = sorted(there.keys() - routes.keys())
    return wrong + [f"{namespace} has a route to {each}" for each in unwanted]


def lead_to_metadata(ipr: IPRoute, leg: RouterLeg, namespace: str) -> None:
    """Send what comes from a network for the metadata address back into that network."""
    name = marks.router_leg_name(leg.port.id)
    table = leg.port.mark
    # The route goes with its leg, the rule does not: it may be one of an earlier leg.
    link = links.need(ipr, name)
    there = ipr.get_routes(family=2, table=table)
    if not any(route.get("oif") == link.index for route in there):
        route = {"dst": f"{METADATA_ADDRESS}/32", "oif": link.index, "scope": _SCOPE_LINK}
        ipr.route("replace", table=table, **route)
        changes.record(
            f"Led {METADATA_ADDRESS} back into {name}",
            [
                *("ip", "-n", namespace, "route", "replace", METADATA_ADDRESS),
                *("dev", name, "table", str(table)),
            ],
        )
    try:
        ipr.rule("add", family=2, iifname=name, table=table)
    except NetlinkError as error:
        if error.code != links.EXISTS:
            raise
        return
    changes.record(
        f"Gave {name} a table of routes",
        ["ip", "-n", namespace, "rule", "add", "iif", name, "lookup", str(table)],
    )


def lead_outside(ipr: IPRoute, leg: str, gateway: RouterLeg, namespace: str) -> None:
    """Send everything else to the external network's gateway."""
    address = str(gateway.subnet.gateway)
    link = links.need(ipr, leg)
    for route in ipr.get_default_routes(family=2):
        if route.get("gateway") == address and route.get("oif") == link.index:
            return
    ipr.route("replace", dst="0.0.0.0/0", gateway=address, oif=link.index)
    changes.record(
        f"Led everything else to {address}",
        ["ip", "-n", namespace, "route", "replace", "default", "via", address, "dev", leg],
    )


def _given(ipr: IPRoute) -> dict[IPv4Network, IPv4Address]:
    return {
        IPv4Network(f"{route.get('dst')}/{route['dst_len']}"): IPv4Address(route.get("gateway"))
        for route in ipr.get_routes(family=2, table=_MAIN)
        if route["proto"] == _PROTOCOL
    }


def _without(ipr: IPRoute, destination: IPv4Network, namespace: str) -> None:
    try:
        ipr.route("del", dst=str(destination), **_ours())
    except NetlinkError as error:
        if error.code != _NO_ROUTE:
            raise
        return
    changes.record(
        f"Took away the route to {destination}",
        [
            *("ip", "-n", namespace, "route", "delete", str(destination)),
            *("metric", str(_METRIC), "proto", str(_PROTOCOL)),
        ],
    )


def _ours() -> dict[str, int]:
    return {"priority": _METRIC, "proto": _PROTOCOL, "table": _MAIN}

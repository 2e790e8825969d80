"""A router's table: what it forwards, and whose addresses it translates.

Floating IPs are two maps, from outside to inside and back: one that is attached, moved
or detached changes elements, and the rules stay. A guest that asks for a floating IP of
its own network (hairpin) is translated both ways, so that the answer comes back through
the router and not directly, from an address that the asker never spoke to.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address

from blocks import marks
from blocks.fabric import nft
from blocks.fabric.connections import Connection
from blocks.fabric.dnsmasq_config import METADATA_ADDRESS
from blocks.fabric.firewall_rules import Rule
from blocks.fabric.nft import ACCEPT, Json
from blocks.fabric.tables import AddressMap, Chain
from blocks.resources import Router, RouterLeg

_DNAT, _FILTER, _OUTPUT, _SNAT = -100, 0, -100, 100
_EVERYBODY = IPv4Address("255.255.255.255")
_TO_GUESTS, _FROM_GUESTS = "floating_to", "floating_from"


def floating(router: Router) -> dict[IPv4Address, IPv4Address]:
    """The router's floating IPs that lead somewhere, and where."""
    return {
        each.address: each.fixed_address
        for each in router.floating_ips
        if each.fixed_address is not None
    }


def maps(router: Router, *, connected: bool) -> list[AddressMap]:
    """The maps of a router's table: none without a gateway."""
    if not connected or router.gateway is None:
        return []
    pairs = {str(outer): str(inner) for outer, inner in floating(router).items()}
    back = {inner: outer for outer, inner in pairs.items()}
    return [AddressMap(_TO_GUESTS, pairs), AddressMap(_FROM_GUESTS, back)]


def chains(router: Router, *, connected: bool) -> list[Chain]:
    """The chains of a router's table: without a gateway it only forwards inside."""
    inside = nft.match(nft.meta("iifname"), "qr-*")
    forward = [
        Rule((nft.state("established", "related"), ACCEPT), "replies"),
        Rule((inside, ACCEPT), "from the tenant's networks"),
    ]
    filtering: dict[str, object] = {"type": "filter", "hook": "forward", "prio": _FILTER}
    forwarding = Chain("forward", {**filtering, "policy": "drop"}, forward)
    if not connected or router.gateway is None:
        return [forwarding]
    outer = marks.gateway_leg_name(router.gateway.port.id)
    came = nft.match(nft.meta("iifname"), outer)
    forward.append(Rule((came, _status("dnat"), ACCEPT), "to floating IPs"))
    if not router.snat:
        forward.append(Rule((came, ACCEPT), "from outside, as nothing is translated"))
    target = {"dnat": {"addr": _mapped("daddr", _TO_GUESTS)}}
    to_guests = [Rule((target,), "floating IPs lead to guests")]
    return [
        forwarding,
        Chain("prerouting", _nat("prerouting", _DNAT), to_guests),
        Chain("output", _nat("output", _OUTPUT), to_guests),
        Chain("postrouting", _nat("postrouting", _SNAT), _sources(router, router.gateway, outer)),
    ]


def _sources(router: Router, gateway: RouterLeg, outer: str) -> list[Rule]:
    """Whose address what leaves gets: its floating IP, else the gateway's."""
    address = str(gateway.port.addresses[0].address)
    leaves = nft.match(nft.meta("oifname"), outer)
    turns = (nft.match(nft.meta("oifname"), "qr-*"), _status("dnat"))
    own = {"snat": {"addr": _mapped("saddr", _FROM_GUESTS)}}
    as_gateway = {"snat": {"addr": address}}
    rules = [
        Rule((leaves, own), "as their floating IPs"),
        Rule((*turns, own), "as their floating IPs, to others of the router"),
    ]
    for leg in router.legs:
        cidr = leg.subnet.cidr
        prefix = {"prefix": {"addr": str(cidr.network_address), "len": cidr.prefixlen}}
        source = nft.match(nft.field("ip", "saddr"), prefix)
        rules.append(Rule((*turns, source, as_gateway), f"from {cidr} to floating IPs"))
    if router.snat:
        rules.append(Rule((leaves, as_gateway), f"as {address}"))
    return rules


def stale(
    router: Router, connections: Iterable[Connection], *, connected: bool
) -> list[Connection]:
    """Those connections that the router would not forward like this any more.

    A connection keeps the translation that it began with, whatever the rules say later:
    that of a floating IP that was detached or moved, of a gateway that was cleared.

    Args:
        router: As it is now.
        connections: What its namespace tracks.
        connected: Whether its gateway leg is there.
    """
    judge = _Judge(router, connected=connected)
    return [each for each in connections if not judge.would_forward(each)]


class _Judge:
    def __init__(self, router: Router, *, connected: bool) -> None:
        gateway = router.gateway if connected else None
        self._snat = router.snat
        self._to = floating(router) if gateway else {}
        self._from = {inner: outer for outer, inner in self._to.items()}
        self._gateway = gateway.port.addresses[0].address if gateway else None
        legs = [*router.legs, *([gateway] if gateway else [])]
        self._own = {fixed.address for leg in legs for fixed in leg.port.addresses}
        self._own.add(IPv4Address(METADATA_ADDRESS))
        # Heard here, and forwarded nowhere.
        self._own |= {leg.subnet.cidr.broadcast_address for leg in legs} | {_EVERYBODY}
        self._inside = [leg.subnet.cidr for leg in router.legs]
        self._inside += [
            route.destination
            for route in router.routes
            if any(route.nexthop in leg.subnet.cidr for leg in router.legs)
        ]

    def would_forward(self, connection: Connection) -> bool:
        source, destination = connection.source, connection.destination
        target = self._to.get(destination, destination)
        if connection.reply_source != target:
            return False
        if connection.reply_destination != source:
            return self._may_become(connection.reply_destination, source, destination)
        if destination in self._to or {source, destination} & self._own:
            return True
        if destination.is_multicast or (self._is_inside(source) and self._is_inside(destination)):
            return True
        return self._gateway is not None and not self._snat

    def _may_become(
        self, translated: IPv4Address, source: IPv4Address, destination: IPv4Address
    ) -> bool:
        if translated == self._gateway:
            return self._snat or destination in self._to
        return translated == self._from.get(source)

    def _is_inside(self, address: IPv4Address) -> bool:
        return any(address in cidr for cidr in self._inside)


def _nat(hook: str, priority: int) -> dict[str, object]:
    return {"type": "nat", "hook": hook, "prio": priority, "policy": "accept"}


def _mapped(side: str, name: str) -> Json:
    return {"map": {"key": nft.field("ip", side), "data": f"@{name}"}}


def _status(status: str) -> Json:
    return nft.match({"ct": {"key": "status"}}, [status], op="in")

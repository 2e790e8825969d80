"""The addresses of a subnet that is asked for: what is wrong with them, and the subnet."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError

from blocks.resources import ExternalNetworkForm, NetworkRequest, Pool, Route, Subnet

#: The smallest subnet: network, gateway, DHCP server, one guest, broadcast need a /29.
LONGEST_PREFIX = 29
SHORTEST_PREFIX = 8

Wanted = NetworkRequest | ExternalNetworkForm


def read_cidr(text: str) -> tuple[IPv4Network | None, list[str]]:
    """A subnet's CIDR, or None and what is wrong with it."""
    try:
        cidr = IPv4Network(text, strict=False)
    except (AddressValueError, NetmaskValueError, ValueError):
        return None, [f"cidr: {text!r} is not an IPv4 network such as 192.168.0.0/24"]
    if "/" not in text:
        return None, [f"cidr: {text!r} has no prefix length, such as /24"]
    if str(IPv4Address(text.split("/", maxsplit=1)[0])) != str(cidr.network_address):
        return None, [f"cidr: {text!r} has host bits set; {cidr} is meant?"]
    if not SHORTEST_PREFIX <= cidr.prefixlen <= LONGEST_PREFIX:
        return None, [
            f"cidr: /{cidr.prefixlen} is not between /{SHORTEST_PREFIX} and /{LONGEST_PREFIX}"
        ]
    if cidr.is_multicast or cidr.is_loopback or cidr.is_link_local or cidr.is_unspecified:
        return None, [f"cidr: {cidr} is not for hosts of a network"]
    return cidr, []


def problems_of_addresses(wanted: Wanted, cidr: IPv4Network) -> Iterator[str]:
    """What is wrong with the gateway, the pools and the host routes, a line each."""
    if wanted.gateway and not _for_hosts(wanted.gateway, cidr):
        yield f"gateway: {wanted.gateway} is not an address for a host of {cidr}"
    pools: list[Pool] = []
    for text in wanted.pool:
        pool = _read_pool(text)
        if pool is None:
            yield f"pool: {text!r} is not FIRST-LAST"
            continue
        if pool.first > pool.last:
            yield f"pool: {text!r} is reversed"
        outside = [str(end) for end in (pool.first, pool.last) if not _for_hosts(end, cidr)]
        if outside:
            yield f"pool: {', '.join(outside)} is not an address for a host of {cidr}"
        for other in pools:
            if pool.first <= other.last and other.first <= pool.last:
                yield f"pool: {text!r} overlaps {other.first}-{other.last}"
        pools.append(pool)
    if isinstance(wanted, NetworkRequest):
        yield from _problems_of_routes(wanted, cidr)


def _problems_of_routes(wanted: NetworkRequest, cidr: IPv4Network) -> Iterator[str]:
    seen: set[IPv4Network] = set()
    for route in wanted.host_routes:
        if not _for_hosts(route.nexthop, cidr):
            yield f"host_routes: {route.nexthop} is not an address for a host of {cidr}"
        if route.destination == cidr:
            yield f"host_routes: {cidr} is the subnet itself"
        if route.destination in seen:
            yield f"host_routes: {route.destination} is given twice"
        seen.add(route.destination)
    if len(set(wanted.dns)) != len(wanted.dns):
        yield "dns: a server is given twice"
    if wanted.host_routes and wanted.external:
        yield "host_routes: guests are told of them, and an external network has none"


def planned_subnet(network_id: str, wanted: Wanted) -> Subnet:
    """The subnet that a valid request asks for, ids chosen.

    The gateway is the first address unless another one is asked for, as in Neutron; the
    pool is every other address of the CIDR unless some are given.
    """
    cidr = IPv4Network(wanted.cidr)
    common = {
        "id": str(uuid.uuid5(uuid.UUID(network_id), "subnet")),
        "network_id": network_id,
        "cidr": cidr,
        "gateway": wanted.gateway or cidr.network_address + 1,
        "pools": _pools(wanted.pool, cidr),
    }
    if isinstance(wanted, ExternalNetworkForm):
        return Subnet.model_validate({**common, "dhcp": False})
    return Subnet.model_validate(
        {
            **common,
            "dns": wanted.dns,
            "dhcp": wanted.dhcp and not wanted.external,
            "host_routes": tuple(
                Route(destination=route.destination, nexthop=route.nexthop)
                for route in wanted.host_routes
            ),
        }
    )


def _pools(texts: Sequence[str], cidr: IPv4Network) -> tuple[Pool, ...]:
    given = tuple(pool for pool in map(_read_pool, texts) if pool is not None)
    return given or (Pool(first=cidr.network_address + 1, last=cidr.broadcast_address - 1),)


def _read_pool(text: str) -> Pool | None:
    first, dash, last = text.partition("-")
    if not dash:
        return None
    try:
        return Pool(first=IPv4Address(first.strip()), last=IPv4Address(last.strip()))
    except AddressValueError:
        return None


def _for_hosts(address: IPv4Address, cidr: IPv4Network) -> bool:
    return address in cidr and address not in (cidr.network_address, cidr.broadcast_address)

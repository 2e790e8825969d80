"""What can be wrong with a network request, beyond the form of its fields."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError

from blocks.errors import NotFound
from blocks.resources import Network, NetworkRequest, NetworkType
from blocks.state import Caller, StateStore
from tasks.policy import POLICY, allows

#: The smallest subnet: network, gateway, DHCP server, one guest, broadcast need a /29.
LONGEST_PREFIX = 29
SHORTEST_PREFIX = 8


def problems(request: NetworkRequest, caller: Caller, store: StateStore) -> list[str]:
    """All that is wrong with a request whose fields have the right form, a line each."""
    cidr, wrong = _cidr(request.cidr)
    checks: list[Callable[[], Iterator[str]]] = [
        lambda: _roles(request, caller),
        lambda: _type(request),
        lambda: _names(request, caller, store),
    ]
    if cidr is not None:
        checks += [
            lambda: _addresses(request, cidr),
            lambda: _overlaps(request, cidr, caller, store),
        ]
    return wrong + [line for check in checks for line in check()]


def _cidr(text: str) -> tuple[IPv4Network | None, list[str]]:
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


def _roles(request: NetworkRequest, caller: Caller) -> Iterator[str]:
    for field in ("external", "physical_bridge", "segment"):
        rule = POLICY[f"network:create:{field}"]
        if getattr(request, field) and not allows(caller, f"network:create:{field}"):
            yield f"{field}: only an {rule.least} may {rule.words}"


def _type(request: NetworkRequest) -> Iterator[str]:
    if request.segment is not None and NetworkType(request.type) is not NetworkType.VXLAN:
        yield f"segment: a {request.type} network has no segment id"
    if request.physical_bridge and NetworkType(request.type) is not NetworkType.FLAT:
        yield f"physical_bridge: a {request.type} network has its own bridge"
    if request.external and request.router:
        yield "router: an external network is a router's gateway, not one of its networks"
    if request.external_network and not request.router:
        yield "external_network: needs a router"


def _names(request: NetworkRequest, caller: Caller, store: StateStore) -> Iterator[str]:
    own = [n for n in store.networks.list(caller.tenant_id) if n.tenant_id == caller.tenant_id]
    if request.name in {network.name for network in own}:
        yield f"name: a network named {request.name!r} is there already"
    # Only who may choose one is told that it is another's.
    if request.segment is not None and allows(caller, "network:create:segment"):
        for network in store.networks.list():
            if network.segment_id == request.segment and network.type == request.type:
                yield f"segment: the {request.type} segment {request.segment} is taken"
    if request.external_network:
        try:
            outside = store.networks.find(caller.tenant_id, request.external_network)
        except NotFound as error:
            yield f"external_network: {error.message}"
        else:
            if not outside.external:
                yield f"external_network: {outside.name!r} is not an external network"


def _addresses(request: NetworkRequest, cidr: IPv4Network) -> Iterator[str]:
    edges = (cidr.network_address, cidr.broadcast_address)
    if request.gateway and (request.gateway not in cidr or request.gateway in edges):
        yield f"gateway: {request.gateway} is not an address for a host of {cidr}"
    if request.pool is None:
        return
    first_text, dash, last_text = request.pool.partition("-")
    try:
        first, last = IPv4Address(first_text), IPv4Address(last_text)
    except AddressValueError:
        yield f"pool: {request.pool!r} is not FIRST-LAST"
        return
    if not dash or first > last:
        yield f"pool: {request.pool!r} is reversed"
    outside = [str(end) for end in (first, last) if end not in cidr or end in edges]
    if outside:
        yield f"pool: {', '.join(outside)} is not an address for a host of {cidr}"


def _overlaps(
    request: NetworkRequest, cidr: IPv4Network, caller: Caller, store: StateStore
) -> Iterator[str]:
    if request.external:
        others = [network for network in store.networks.list() if network.external]
    elif request.router:
        others = _behind(request.router, caller, store)
    else:
        others = []
    if request.external_network:
        others += [
            network
            for network in store.networks.list(caller.tenant_id)
            if network.external and network.name == request.external_network
        ]
    for network in others:
        for subnet in store.networks.subnets(network.id):
            if subnet.cidr.overlaps(cidr):
                yield f"cidr: {cidr} overlaps {subnet.cidr} of the network {network.name!r}"


def _behind(name: str, caller: Caller, store: StateStore) -> list[Network]:
    try:
        router = store.routers.find(caller.tenant_id, name)
    except NotFound:
        return []
    legs = [leg.network for leg in router.legs]
    return [*legs, router.gateway.network] if router.gateway else legs

"""What can be wrong with a network request, beyond the form of its fields."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import IPv4Network

from blocks.errors import NotFound
from blocks.resources import Network, NetworkRequest, NetworkType, Router
from blocks.state import Caller, StateStore
from tasks.network_addresses import problems_of_addresses, read_cidr
from tasks.policy import POLICY, allows

#: The largest segment id that may be asked for, by type.
LARGEST_SEGMENT = {
    NetworkType.VLAN: 4094,
    NetworkType.VXLAN: 2**24 - 1,
    NetworkType.GRE: 2**32 - 1,
}
_FOR_ADMINS = ("external", "create_external", "physical_bridge", "physical_interface", "segment")


def problems(request: NetworkRequest, caller: Caller, store: StateStore) -> list[str]:
    """All that is wrong with a request whose fields have the right form, a line each."""
    cidr, wrong = read_cidr(request.cidr)
    checks: list[Callable[[], Iterator[str]]] = [
        lambda: _roles(request, caller),
        lambda: _type(request),
        lambda: _together(request),
        lambda: _names(request, caller, store),
        lambda: _external(request, cidr, caller, store),
    ]
    if cidr is not None:
        checks += [
            lambda: problems_of_addresses(request, cidr),
            lambda: _overlaps(request, cidr, caller, store),
        ]
    return wrong + [line for check in checks for line in check()]


def _roles(request: NetworkRequest, caller: Caller) -> Iterator[str]:
    asked = [field for field in _FOR_ADMINS if getattr(request, field)]
    if not request.port_security:
        asked.append("port_security")
    for field in asked:
        rule = POLICY[f"network:create:{field}"]
        if not allows(caller, f"network:create:{field}"):
            yield f"{field}: only an {rule.least} may {rule.words}"


def _type(request: NetworkRequest) -> Iterator[str]:
    kind = NetworkType(request.type)
    largest = LARGEST_SEGMENT.get(kind)
    if request.segment is not None:
        if largest is None:
            yield f"segment: a {kind} network has no segment id"
        elif not 1 <= request.segment <= largest:
            yield f"segment: {request.segment} is not between 1 and {largest}, as of type {kind}"
    if request.physical_bridge and kind is not NetworkType.FLAT:
        yield f"physical_bridge: a {kind} network has its own bridge"
    if request.physical_interface and kind is not NetworkType.VLAN:
        yield f"physical_interface: a {kind} network needs none"
    if kind is NetworkType.VLAN and not request.physical_interface:
        yield "physical_interface: a vlan network needs the host's interface that carries it"


def _together(request: NetworkRequest) -> Iterator[str]:
    """Fields that contradict each other."""
    if request.external and request.router:
        yield "router: an external network is a router's gateway, not one of its networks"
    if request.external and request.create_external:
        yield "create_external: this is an external network itself"
    if request.external_network and not request.router:
        yield "external_network: needs a router"
    if request.create_external and not request.router:
        yield "create_external: needs a router, whose gateway it is to be"
    if request.create_external and request.external_network not in (
        None,
        request.create_external.name,
    ):
        yield (
            f"external_network: the router's gateway cannot be in {request.external_network!r} "
            f"and in {request.create_external.name!r}"
        )
    if request.outside != "closed" and not request.external:
        yield f"outside: {request.outside!r} is for external networks"
    if request.outside == "bridge" and request.external and not request.physical_bridge:
        yield "outside: 'bridge' needs the physical bridge that it is"


def _names(request: NetworkRequest, caller: Caller, store: StateStore) -> Iterator[str]:
    own = _own_names(caller, store)
    if request.name in own:
        yield f"name: a network named {request.name!r} is there already"
    # Only who may choose one is told that it is another's.
    if request.segment is not None and allows(caller, "network:create:segment"):
        for network in store.networks.list():
            if network.segment_id == request.segment and network.type == request.type:
                yield f"segment: the {request.type} segment {request.segment} is taken"
    if request.external_network and not request.create_external:
        try:
            outside = store.networks.find(caller.tenant_id, request.external_network)
        except NotFound as error:
            yield f"external_network: {error.message}"
        else:
            if not outside.external:
                yield f"external_network: {outside.name!r} is not an external network"
    router = _router(request.router, caller, store)
    wanted = request.create_external.name if request.create_external else request.external_network
    if router is not None and router.gateway is not None and wanted is not None:
        gateway = router.gateway.network
        if wanted not in (gateway.name, gateway.id):
            yield f"router: {router.name!r} has its gateway in {gateway.name!r}"


def _external(
    request: NetworkRequest, inner: IPv4Network | None, caller: Caller, store: StateStore
) -> Iterator[str]:
    """The external network that is to be made with it."""
    form = request.create_external
    if form is None:
        return
    cidr, wrong = read_cidr(form.cidr)
    found = list(wrong)
    if form.name == request.name:
        found.append("name: it cannot be that of the tenant network")
    if form.name in _own_names(caller, store):
        found.append(f"name: a network named {form.name!r} is there already")
    if form.outside == "bridge" and not form.physical_bridge:
        found.append("outside: 'bridge' needs the physical bridge that it is")
    if cidr is not None:
        found += problems_of_addresses(form, cidr)
        found += _overlapping(cidr, [n for n in store.networks.list() if n.external], store)
        if inner is not None and cidr.overlaps(inner):
            found.append(f"cidr: {cidr} overlaps {inner} of the tenant network")
    yield from (f"create_external.{line}" for line in found)


def _own_names(caller: Caller, store: StateStore) -> set[str]:
    networks = store.networks.list(caller.tenant_id)
    return {network.name for network in networks if network.tenant_id == caller.tenant_id}


def _overlaps(
    request: NetworkRequest, cidr: IPv4Network, caller: Caller, store: StateStore
) -> Iterator[str]:
    if request.external:
        others = [network for network in store.networks.list() if network.external]
    else:
        others = _behind(_router(request.router, caller, store))
    if request.external_network:
        others += [
            network
            for network in store.networks.list(caller.tenant_id)
            if network.external and request.external_network in (network.name, network.id)
        ]
    unique = {network.id: network for network in others}
    yield from _overlapping(cidr, list(unique.values()), store)


def _overlapping(cidr: IPv4Network, others: list[Network], store: StateStore) -> list[str]:
    return [
        f"cidr: {cidr} overlaps {subnet.cidr} of the network {network.name!r}"
        for network in others
        for subnet in store.networks.subnets(network.id)
        if subnet.cidr.overlaps(cidr)
    ]


def _router(name: str | None, caller: Caller, store: StateStore) -> Router | None:
    if name is None:
        return None
    try:
        return store.routers.find(caller.tenant_id, name)
    except NotFound:
        return None


def _behind(router: Router | None) -> list[Network]:
    if router is None:
        return []
    legs = [leg.network for leg in router.legs]
    return [*legs, router.gateway.network] if router.gateway else legs

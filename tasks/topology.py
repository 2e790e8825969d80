"""How networks, routers and VMs hang together: a diagram in Mermaid, from the records alone.

No module of Prefect is imported here: `fifty network show --topology` is quick.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from blocks.resources import FloatingIp, Network, PortKind, Router
from blocks.state import StateStore

#: So many of a network's VMs that are alike are drawn one by one.
_MOST_ALIKE = 12


@dataclass(frozen=True)
class GuestPlug:
    """A VM's interface in a network.

    Attributes:
        name: The VM's.
        floating: The addresses outside that lead to it.
    """

    vm_id: str
    name: str
    addresses: tuple[str, ...]
    floating: tuple[str, ...]


@dataclass(frozen=True)
class NetworkPicture:
    """A network with what is plugged into it.

    Attributes:
        free: Its floating IPs that lead nowhere.
    """

    network: Network
    cidrs: tuple[str, ...]
    guests: tuple[GuestPlug, ...]
    free: tuple[str, ...] = ()


@dataclass(frozen=True)
class Topology:
    """Networks, and the routers between them."""

    networks: tuple[NetworkPicture, ...]
    routers: tuple[Router, ...]


def topology(
    store: StateStore, tenant_id: str | None = None, around: Network | None = None
) -> Topology:
    """What there is to draw.

    Args:
        store: The state store.
        tenant_id: As this tenant sees it: others' VMs, routers and floating IPs, which are in
            shared and external networks too, are left out. None for all of them.
        around: Only what hangs together with this network.
    """
    networks = store.networks.list(tenant_id)
    routers = store.routers.list(tenant_id)
    if around is not None:
        ids, routers = _together(around, routers)
        networks = [network for network in networks if network.id in ids]
        if around.id not in {network.id for network in networks}:
            networks.append(around)
    floating = store.floating_ips.list(tenant_id)
    names = {vm.id: vm.name for vm in store.instances.list(tenant_id)}
    pictures = (_picture(store, network, names, floating) for network in networks)
    return Topology(tuple(pictures), tuple(routers))


def legs_of(router: Router) -> list[tuple[str, str, bool]]:
    """A router's legs, the gateway first: network id, addresses, whether it is the gateway."""
    gateway = [(router.gateway, True)] if router.gateway else []
    return [
        (leg.network.id, ", ".join(str(held.address) for held in leg.port.addresses), outside)
        for leg, outside in (*gateway, *((leg, False) for leg in router.legs))
    ]


def _networks_of(router: Router) -> list[str]:
    return [network_id for network_id, _address, _outside in legs_of(router)]


def _together(around: Network, routers: Sequence[Router]) -> tuple[set[str], list[Router]]:
    """The networks that routers join to one, and these; an external network joins no others."""
    outside = {router.gateway.network.id for router in routers if router.gateway}
    found, new = {around.id}, {around.id}
    between: dict[str, Router] = {}
    while new:
        # Through the world outside everybody hangs together with everybody.
        inside = new if around.id in new else new - outside
        near = [router for router in routers if inside & set(_networks_of(router))]
        between |= {router.id: router for router in near}
        new = {network_id for router in near for network_id in _networks_of(router)} - found
        found |= new
    return found, [router for router in routers if router.id in between]


def _picture(
    store: StateStore, network: Network, names: Mapping[str, str], floating: Sequence[FloatingIp]
) -> NetworkPicture:
    guests = [
        GuestPlug(
            port.device_id,
            names[port.device_id],
            tuple(str(held.address) for held in port.addresses),
            tuple(str(one.address) for one in floating if one.port_id == port.id),
        )
        for port in store.ports.list(kind=PortKind.COMPUTE, network_id=network.id)
        if port.device_id is not None and port.device_id in names
    ]
    return NetworkPicture(
        network,
        tuple(str(subnet.cidr) for subnet in store.networks.subnets(network.id)),
        tuple(sorted(guests, key=lambda guest: guest.name)),
        tuple(
            str(one.address)
            for one in floating
            if one.network_id == network.id and one.port_id is None
        ),
    )


def kind_words(network: Network) -> str:
    """How a network is told from the others: `gre 1`, `local`."""
    number = f" {network.segment_id}" if network.segment_id is not None else ""
    return f"{network.type}{number}"


def mermaid(picture: Topology) -> str:
    """The diagram, in Mermaid's language: outside on top, VMs at the bottom.

    Of many VMs that are alike, in one network only and without a floating IP, a few are drawn:
    nobody reads hundreds, and Mermaid refuses more than 500 lines between things.
    """
    lines = ["flowchart TB"]
    known = {one.network.id: f"n{number}" for number, one in enumerate(picture.networks)}
    vms: dict[str, str] = {}
    plugs = Counter(guest.vm_id for one in picture.networks for guest in one.guests)
    for one in picture.networks:
        alike = [guest for guest in one.guests if plugs[guest.vm_id] == 1 and not guest.floating]
        folded = alike[_MOST_ALIKE:] if len(alike) > _MOST_ALIKE + 1 else []
        node = known[one.network.id]
        lines += _draw_network(one, node, vms, folded)
        if folded:
            lines.append(f"  {node} --- {node}m[{_label([f'and {len(folded)} more VMs'])}]:::vm")
    for number, router in enumerate(picture.routers):
        words = [
            router.name,
            "router",
            *(["no SNAT"] if router.gateway and not router.snat else []),
        ]
        lines.append(f"  r{number}{{{{{_label(words)}}}}}:::router")
        for network_id, address, outside in legs_of(router):
            if network_id in known:
                ends = (known[network_id], f"r{number}")
                upper, lower = ends if outside else reversed(ends)
                lines.append(f"  {upper} ---|{_label([address or 'no address'])}| {lower}")
    lines += [
        "  classDef outside fill:#e3f2fd,stroke:#1565c0,color:#0d47a1",
        "  classDef network fill:#e8f5e9,stroke:#2e7d32,color:#1b5e20",
        "  classDef router fill:#fff3e0,stroke:#ef6c00,color:#e65100",
        "  classDef vm fill:#f3e5f5,stroke:#6a1b9a,color:#4a148c",
    ]
    return "\n".join(lines) + "\n"


def _draw_network(
    one: NetworkPicture, node: str, vms: dict[str, str], folded: Collection[GuestPlug]
) -> list[str]:
    network = one.network
    words = [network.name, *one.cidrs, kind_words(network)]
    lines = []
    if network.external:
        words += [f"floating IP {address} is free" for address in one.free]
        lines.append(f"  {node}o([{_label(['outside', network.outside])}]):::outside")
        lines.append(f"  {node}o --- {node}")
    lines.append(f"  {node}[[{_label(words)}]]:::{'outside' if network.external else 'network'}")
    for guest in one.guests:
        if guest in folded:
            continue
        if guest.vm_id not in vms:
            vms[guest.vm_id] = f"v{len(vms)}"
            lines.append(f"  {vms[guest.vm_id]}[{_label([guest.name])}]:::vm")
        on = [*(guest.addresses or ("no address",)), *(f"⇄ {outer}" for outer in guest.floating)]
        lines.append(f"  {node} ---|{_label(on)}| {vms[guest.vm_id]}")
    return lines


def _label(lines: Iterable[str]) -> str:
    """A label: in quotes, with nothing in it that Mermaid or a browser takes for its own."""
    safe = ("".join(_escaped(character) for character in line) for line in lines)
    return f'"{"<br/>".join(safe)}"'


def _escaped(character: str) -> str:
    """A character as it is, or as Mermaid's entity (`#NUMBER;`)."""
    plain = character.isalnum() or character in " ._-:/,⇄()"
    return character if plain else f"#{ord(character)};"

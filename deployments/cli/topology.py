"""`fifty network show --topology` for a terminal: what hangs on what, as a tree."""

from __future__ import annotations

from collections.abc import Iterator

from blocks.resources import Router
from deployments.cli import output
from tasks.topology import NetworkPicture, Topology, kind_words, legs_of

_Branch = tuple[str, list["_Branch"]]


def tell(picture: Topology) -> None:
    """Print the tree: from the outside inwards; what hangs on no router stands at the top."""
    for root in _trees(picture):
        output.say(output.plain(root[0]))
        for line in _lines(root[1], ""):
            output.say(output.plain(line))


def _lines(branches: list[_Branch], indent: str) -> Iterator[str]:
    for number, (words, below) in enumerate(branches):
        last = number == len(branches) - 1
        yield f"{indent}{'└─' if last else '├─'} {words}"
        yield from _lines(below, indent + ("   " if last else "│  "))


def _trees(picture: Topology) -> Iterator[_Branch]:
    networks = {one.network.id: one for one in picture.networks}
    shown: set[str] = set()

    def leg(network_id: str, address: str) -> _Branch:
        one = networks[network_id]
        words = f"{_network(one)}, router's {address or 'no address'}"
        if network_id in shown:
            return f"{words} (as above)", []
        shown.add(network_id)
        return words, _guests(one)

    def inside(router: Router) -> list[_Branch]:
        legs = legs_of(router)
        return [leg(i, address) for i, address, outer in legs if not outer and i in networks]

    for one in picture.networks:
        if not one.network.external:
            continue
        shown.add(one.network.id)
        behind = [
            (f"router {router.name} {address or 'no address'}{_snat(router)}", inside(router))
            for router in picture.routers
            for network_id, address, outer in legs_of(router)
            if outer and network_id == one.network.id
        ]
        free: list[_Branch] = [(f"floating IP {address}, free", []) for address in one.free]
        yield f"outside ({one.network.outside})", [(_network(one), [*behind, *free])]
    for router in picture.routers:
        if router.gateway is None or router.gateway.network.id not in networks:
            yield f"router {router.name}, no gateway", inside(router)
    for one in picture.networks:
        if one.network.id not in shown:
            yield _network(one), _guests(one)


def _network(one: NetworkPicture) -> str:
    return " ".join((one.network.name, *one.cidrs, kind_words(one.network)))


def _guests(one: NetworkPicture) -> list[_Branch]:
    found: list[_Branch] = []
    for guest in one.guests:
        outer = f", floating IP {', '.join(guest.floating)}" if guest.floating else ""
        found.append((f"VM {guest.name} {', '.join(guest.addresses) or 'no address'}{outer}", []))
    return found


def _snat(router: Router) -> str:
    return ", SNAT" if router.snat else ", no SNAT"

"""The legs of namespaces in networks: veth pairs, one end in the network's bridge."""

from __future__ import annotations

import os
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from blocks import changes
from blocks.fabric import links, namespaces
from blocks.fabric.links import Link, all_links, create, find, need, settle, with_links


@dataclass(frozen=True)
class Leg:
    """A namespace's leg in a network: a veth pair, one end in the network's bridge.

    Attributes:
        alias: The mark of both ends.
        outer: The end in the bridge.
        inner: The end in the namespace.
        mac: The inner end's address; the kernel chooses if none.
        addresses: What the inner end answers to, as `192.168.0.1/24`.
        isolated: Whether the outer end is kept from what leads to other hosts.
    """

    alias: str
    outer: str
    inner: str
    namespace: str
    mac: str | None
    mtu: int
    addresses: tuple[str, ...]
    isolated: bool = False


def ensure_leg(leg: Leg, bridge: str) -> None:
    """Make a leg: the pair, its ends in their places, up, marked, with its addresses.

    A pair whose inner end is elsewhere (in a namespace that lost its name and lives on
    with a process) is made anew.
    """

    def outside(ipr: IPRoute) -> None:
        link = find(ipr, leg.outer)
        if link is not None and link.alias == leg.alias and not _reaches(leg):
            ipr.link("del", index=link.index)
            link = None
            changes.record(
                f"Deleted {leg.outer}, which did not lead to {leg.namespace}",
                ["ip", "link", "delete", leg.outer],
            )
        if link is None:
            _add_pair(ipr, leg)
        link = create(ipr, leg.outer, leg.alias, [], kind="veth")
        namespaces.without_ipv6(leg.outer)
        settle(ipr, link, mtu=leg.mtu, bridge=need(ipr, bridge), isolated=leg.isolated)

    def within(ipr: IPRoute) -> None:
        link = need(ipr, leg.inner)
        if link.alias != leg.alias:
            ipr.link("set", index=link.index, ifalias=leg.alias)
        settle(ipr, link, mtu=leg.mtu, namespace=leg.namespace)
        set_addresses(ipr, link, leg.addresses, leg.namespace)

    with_links(None, outside)
    with_links(leg.namespace, within)


def towards(ipr: IPRoute, address: IPv4Address) -> tuple[str, IPv4Address] | None:
    """The leg in the network of an address, and its own address there, if there is one."""
    for link in all_links(ipr):
        for text in addresses_of(ipr, link):
            own = IPv4Interface(text)
            if address in own.network:
                return link.name, own.ip
    return None


def remove_legs(namespace: str) -> None:
    """Delete all veth pairs of a namespace; they would live on with its last process."""
    if not namespaces.exists(namespace):
        return

    def delete(ipr: IPRoute) -> None:
        for link in all_links(ipr):
            if link.kind == "veth":
                ipr.link("del", index=link.index)
                changes.record(
                    f"Deleted the leg {link.name} of {namespace}",
                    ["ip", "-n", namespace, "link", "delete", link.name],
                )

    with_links(namespace, delete)


def keep_only(ipr: IPRoute, prefix: str, wanted: set[str], namespace: str) -> None:
    """Delete the inner ends whose names begin so, but for those that are wanted."""
    for link in all_links(ipr):
        if link.name.startswith(prefix) and link.name not in wanted:
            ipr.link("del", index=link.index)
            changes.record(
                f"Deleted the leg {link.name} of {namespace}",
                ["ip", "-n", namespace, "link", "delete", link.name],
            )


def plug_differences(ipr: IPRoute, leg: Leg, bridge: str) -> list[str]:
    """What of a leg's outer end is not as it should be; `ipr` is outside of the namespace."""
    link, master = find(ipr, leg.outer), find(ipr, bridge)
    if link is None or master is None:
        return [f"{leg.outer} is not in a bridge {bridge}"]
    return links.differences(
        link, alias=leg.alias, mtu=leg.mtu, master=master, isolated=leg.isolated
    )


def differences(ipr: IPRoute, leg: Leg, *, others: bool = False) -> list[str]:
    """What of a leg's inner end is not as it should be; `ipr` is in the leg's namespace.

    With `others` it may have other addresses besides.
    """
    link = find(ipr, leg.inner)
    if link is None:
        return [f"{leg.namespace} has no leg {leg.inner}"]
    wrong = links.differences(link, alias=leg.alias, mtu=leg.mtu)
    there = addresses_of(ipr, link)
    if not (there >= set(leg.addresses) if others else there == set(leg.addresses)):
        wrong.append(f"{leg.inner} has the addresses {sorted(there)}, not {leg.addresses}")
    if leg.mac and link.mac != leg.mac:
        wrong.append(f"{leg.inner} has the MAC address {link.mac}, not {leg.mac}")
    return wrong


def set_addresses(
    ipr: IPRoute, link: Link, addresses: tuple[str, ...], namespace: str | None = None
) -> bool:
    """Give a link exactly these IPv4 addresses.

    Returns:
        Whether anything changed.
    """
    there = addresses_of(ipr, link)
    where = ["-n", namespace] if namespace else []
    for address in addresses:
        if address not in there:
            ip, length = address.split("/")
            ipr.addr("replace", index=link.index, address=ip, prefixlen=int(length))
            changes.record(
                f"Gave {link.name} the address {address}",
                ["ip", *where, "address", "replace", address, "dev", link.name],
            )
    for address in there - set(addresses):
        ip, length = address.split("/")
        ipr.addr("del", index=link.index, address=ip, prefixlen=int(length))
        changes.record(
            f"Took the address {address} from {link.name}",
            ["ip", *where, "address", "delete", address, "dev", link.name],
        )
    return there != set(addresses)


def addresses_of(ipr: IPRoute, link: Link) -> set[str]:
    """The IPv4 addresses of a link, as `192.168.0.1/24`."""
    return {
        f"{message.get('local') or message.get('address')}/{message['prefixlen']}"
        for message in ipr.get_addr(family=2, index=link.index)
    }


def _reaches(leg: Leg) -> bool:
    return with_links(leg.namespace, lambda ipr: find(ipr, leg.inner)) is not None


def _add_pair(ipr: IPRoute, leg: Leg) -> None:
    handle = os.open(Path("/run/netns") / leg.namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        peer: dict[str, Any] = {"ifname": leg.inner, "mtu": leg.mtu, "net_ns_fd": handle}
        if leg.mac:
            peer["address"] = leg.mac
        ipr.link("add", ifname=leg.outer, kind="veth", mtu=leg.mtu, peer=peer)
    finally:
        os.close(handle)
    mac = ["address", leg.mac] if leg.mac else []
    changes.record(
        f"Created the veth pair {leg.outer} - {leg.inner} (in {leg.namespace})",
        [
            *("ip", "link", "add", leg.outer, "type", "veth"),
            *("peer", "name", leg.inner, *mac, "netns", leg.namespace),
        ],
    )

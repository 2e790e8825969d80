"""The underlay: the network that joins the hosts, and what of its MTU is left for guests."""

from __future__ import annotations

from ipaddress import IPv4Address

from pyroute2 import IPRoute

from blocks.errors import NotFound, Unsupported
from blocks.fabric.links import with_links
from blocks.fabric.segments.vswitch import Query, Vswitch, quoted
from blocks.resources import NetworkType

DEFAULT_MTU = 1500
#: What a tunnel takes of the underlay's MTU: the guest's Ethernet header (14), IPv4 (20), and
#: UDP and VXLAN (8 + 8; RFC 7348) or GRE with a key (8; RFC 2890).
OVERHEAD = {NetworkType.VXLAN: 50, NetworkType.GRE: 42}


def segment_mtu(
    kind: NetworkType, address: IPv4Address | None = None, underlay_mtu: int | None = None
) -> int:
    """The MTU of networks of a type, on this host.

    Args:
        kind: The type.
        address: This host's underlay address; None where it has none.
        underlay_mtu: The underlay's MTU, where it is known; else that of the interface
            with the address, else 1500.

    Raises:
        NotFound: No interface of this host has the address.
    """
    if underlay_mtu is None:
        underlay_mtu = DEFAULT_MTU if address is None else _mtu_of(address)
    return underlay_mtu - OVERHEAD.get(kind, 0)


def interface_with(ipr: IPRoute, address: IPv4Address) -> tuple[str, int]:
    """Name and MTU of the interface with an address.

    Raises:
        NotFound: No interface of this host has it.
    """
    for message in ipr.get_addr(family=2):
        if (message.get("local") or message.get("address")) == str(address):
            [link] = ipr.get_links(message["index"])
            return link.get("ifname"), link.get("mtu")
    raise NotFound(
        f"no interface of this host has the underlay address {address}",
        hint="correct FIFTY_UNDERLAY_IP; `ip address` lists what there is",
    )


def require_vswitch_underlay(ipr: IPRoute, vswitch: Vswitch, address: IPv4Address) -> None:
    """Refuse tunnels of the userspace datapath from an address that it cannot send from.

    It sends and receives by its own ports only: the address must be on one of them (the
    internal port of the bridge that holds the physical interface).

    Raises:
        NotFound: No interface of this host has the address.
        Unsupported: The address is elsewhere.
    """
    interface, _ = interface_with(ipr, address)
    [rows] = vswitch.ask(Query("Interface", ("name",), (f"name={quoted(interface)}",)))
    if not rows:
        bridge = f"br-{interface}"
        raise Unsupported(
            f"the userspace datapath of Open vSwitch cannot send from {address}, which is on "
            f"{interface} and not on a port of its own",
            hint=f"`ovs-vsctl add-br {bridge} -- set Bridge {bridge} datapath_type=netdev -- "
            f"add-port {bridge} {interface}`, and move the address from {interface} to {bridge}; "
            "or use a type that this kernel can do itself (vxlan)",
        )


def _mtu_of(address: IPv4Address) -> int:
    return with_links(None, lambda ipr: interface_with(ipr, address))[1]

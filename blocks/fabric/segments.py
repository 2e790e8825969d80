"""Segments: a network's bridge on this host, and its tunnel to the others.

Neutron's Linux bridge agent did the same (`brq...` and `vxlan-...`). A driver makes the
segments of its kind of switch; the rest of the fabric only knows the name of the bridge
that a tap or a veth is enslaved to.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import Any, Protocol

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from blocks import changes, marks
from blocks.errors import Conflict, HostFault, InvalidRequest, NotFound, Unsupported
from blocks.fabric import kernel, links
from blocks.fabric.links import Link, with_links
from blocks.fabric.site import Site
from blocks.resources import Network, NetworkType

#: RFC 7348's port.
VXLAN_PORT = 4789
#: The destination of the flood list: frames to nobody known, and to everybody.
_ANYBODY = "00:00:00:00:00:00"


class SegmentDriver(Protocol):
    """What makes the segments of one kind of switch."""

    def check(self, network: Network) -> None:
        """Raise Unsupported naming what this host lacks for the network."""
        ...

    def realize(
        self, network: Network, peers: Sequence[IPv4Address], local: IPv4Address | None
    ) -> None:
        """Make the segment as it is described, or bring it to that."""
        ...

    def remove(self, network: Network) -> bool:
        """Remove the segment unless something is plugged into it; tell whether it is gone."""
        ...

    def bridge(self, network: Network) -> str:
        """The name of the bridge that the network's devices are enslaved to."""
        ...

    def differences(self, network: Network) -> list[str]:
        """What of the segment is not as it should be, in words."""
        ...


class LinuxBridge:
    """The driver `linuxbridge`: one bridge a network; VXLAN by the kernel's own device."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def check(self, network: Network) -> None:
        """Raise Unsupported naming what this kernel lacks for the network.

        Raises:
            InvalidRequest: A vxlan network without a segment id.
            Unsupported: The kernel cannot make a kind of link that is needed.
        """
        kinds = ["bridge", "veth", "tun"]
        if network.type is NetworkType.VXLAN:
            if network.segment_id is None:
                raise InvalidRequest(f"the vxlan network {network.name} has no segment id")
            kinds.append("vxlan")
        missing = [kind for kind in kinds if not kernel.knows_link_kind(kind)]
        if missing:
            raise Unsupported(
                f"this kernel has no {', '.join(missing)} devices, which a network of type "
                f"{network.type} needs",
                hint="load the module (`modprobe NAME`), or use a network type that it has",
            )
        if not kernel.tracks_connections_in_bridges() and not kernel.has_br_netfilter():
            raise Unsupported(
                "this kernel has neither nf_conntrack_bridge nor br_netfilter, one of which "
                "security groups need",
                hint="modprobe nf_conntrack_bridge, or modprobe br_netfilter",
            )

    def bridge(self, network: Network) -> str:
        """The operator's bridge where the network names one, else our own."""
        return network.physical_bridge or marks.bridge_name(network.id)

    def realize(
        self, network: Network, peers: Sequence[IPv4Address], local: IPv4Address | None
    ) -> None:
        """Make the bridge and, for vxlan, the tunnel with its flood list.

        The tunnel learns addresses from what it receives: with a flood list and no
        control plane that would tell it where each guest is, that is what keeps known
        guests' frames from going to every peer. Guests cannot poison it, for nobody
        leaves a port with another's MAC address.

        Raises:
            NotFound: The operator's bridge is not there.
            HostFault: The operator's bridge hides its frames from nftables.
            Conflict: The VNI is taken by another device.
        """

        def make(ipr: IPRoute) -> None:
            if network.physical_bridge:
                self._operators(ipr, network.physical_bridge)
                return
            alias = self._site.alias("network", network.id)
            bridge = links.ensure_bridge(ipr, self.bridge(network), alias, network.mtu)
            if network.type is NetworkType.VXLAN:
                tunnel = self._tunnel(ipr, network, local)
                links.settle(ipr, tunnel, mtu=network.mtu, bridge=bridge)
                _flood_to(ipr, tunnel, {str(peer) for peer in peers})

        with self._site.locked(network.id):
            with_links(None, make)

    def remove(self, network: Network) -> bool:
        """Remove bridge and tunnel, unless a guest, DHCP or router port is plugged in.

        Returns:
            Whether nothing of the segment is left. An operator's bridge stays, as it
            is not part of the segment.
        """
        if network.physical_bridge:
            return True
        alias = self._site.alias("network", network.id)
        tunnel = marks.vxlan_name(network.id)

        def unmake(ipr: IPRoute) -> bool:
            bridge = links.find(ipr, self.bridge(network))
            if bridge is not None:
                ports = [link for link in links.all_links(ipr) if link.master == bridge.index]
                if any(port.name != tunnel for port in ports):
                    return False
            links.delete(ipr, tunnel, alias)
            links.delete(ipr, self.bridge(network), alias)
            return True

        with self._site.locked(network.id):
            return with_links(None, unmake)

    def differences(self, network: Network) -> list[str]:
        """What of bridge and tunnel is not as `realize` makes it."""

        def look(ipr: IPRoute) -> list[str]:
            bridge = links.find(ipr, self.bridge(network))
            if bridge is None:
                return [f"the bridge {self.bridge(network)} is not there"]
            wrong = [] if bridge.up else [f"the bridge {bridge.name} is down"]
            if not _shows_its_frames(bridge):
                wrong.append(f"the bridge {bridge.name} hides its frames from nftables")
            if network.physical_bridge:
                return wrong
            alias = self._site.alias("network", network.id)
            wrong += links.differences(bridge, alias=alias, mtu=network.mtu)
            if network.type is NetworkType.VXLAN:
                wrong += self._tunnel_differences(ipr, network, bridge, alias)
            return wrong

        return with_links(None, look)

    def _tunnel_differences(
        self, ipr: IPRoute, network: Network, bridge: Link, alias: str
    ) -> list[str]:
        tunnel = links.find(ipr, marks.vxlan_name(network.id))
        if tunnel is None:
            return [f"the tunnel {marks.vxlan_name(network.id)} is not there"]
        wrong = links.differences(tunnel, alias=alias, mtu=network.mtu, master=bridge)
        vni = tunnel.details.get("IFLA_VXLAN_ID")
        if vni != network.segment_id:
            wrong.append(f"the tunnel {tunnel.name} has VNI {vni}, not {network.segment_id}")
        return wrong

    @staticmethod
    def _operators(ipr: IPRoute, name: str) -> None:
        bridge = links.find(ipr, name)
        if bridge is None or bridge.kind != "bridge":
            raise NotFound(
                f"there is no bridge {name} on this host",
                hint=f"make it (`ip link add {name} type bridge`), or name another",
            )
        if not _shows_its_frames(bridge):
            raise HostFault(
                f"the bridge {name} hides its frames from nftables, so that security "
                "groups would not work",
                hint=f"ip link set {name} type bridge nf_call_iptables 1",
            )

    def _tunnel(self, ipr: IPRoute, network: Network, local: IPv4Address | None) -> Link:
        name = marks.vxlan_name(network.id)
        vni = network.segment_id
        attributes: dict[str, Any] = {"vxlan_local": str(local)} if local else {}
        words = ["ip", "link", "add", name, "type", "vxlan", "id", str(vni)]
        words += ["dstport", str(VXLAN_PORT), "ttl", "64", "learning"]
        try:
            return links.create(
                ipr,
                name,
                self._site.alias("network", network.id),
                [*words, *(["local", str(local)] if local else [])],
                kind="vxlan",
                vxlan_id=vni,
                vxlan_port=VXLAN_PORT,
                vxlan_learning=True,
                vxlan_ttl=64,
                **attributes,
            )
        except NetlinkError as error:
            if error.code != links.EXISTS:
                raise
            raise Conflict(
                f"VNI {vni} is taken by another device of this host",
                hint="`ip -d link show type vxlan` shows it; choose another segment id",
            ) from error


def _shows_its_frames(bridge: Link) -> bool:
    if kernel.tracks_connections_in_bridges():
        return True
    return bool(bridge.details.get("IFLA_BR_NF_CALL_IPTABLES")) or kernel.calls_iptables()


def _flood_to(ipr: IPRoute, tunnel: Link, peers: set[str]) -> None:
    there = {
        entry.get("NDA_DST")
        for entry in ipr.fdb("dump", ifindex=tunnel.index)
        if entry.get("NDA_LLADDR") == _ANYBODY and entry.get("NDA_DST")
    }
    words = ["bridge", "fdb"]
    for peer in sorted(peers - there):
        ipr.fdb("append", ifindex=tunnel.index, lladdr=_ANYBODY, dst=peer)
        command = [*words, "append", _ANYBODY, "dev", tunnel.name, "dst", peer]
        changes.record(f"Added the peer {peer} to {tunnel.name}", command)
    for peer in sorted(there - peers):
        ipr.fdb("del", ifindex=tunnel.index, lladdr=_ANYBODY, dst=peer)
        command = [*words, "delete", _ANYBODY, "dev", tunnel.name, "dst", peer]
        changes.record(f"Took the peer {peer} from {tunnel.name}", command)

"""The driver `linuxbridge`: the kernel's own VXLAN, GRE and VLAN devices.

Neutron's Linux bridge agent made the same for VXLAN and VLAN (`vxlan-...`, `eth0.100`).
"""

from __future__ import annotations

from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from blocks import changes, marks
from blocks.errors import Conflict, NotFound
from blocks.fabric import kernel, links
from blocks.fabric.links import Link
from blocks.fabric.segments.carrier import Ends, Lack, interface_of, local_end, segment_of
from blocks.fabric.site import Site
from blocks.resources import Network, NetworkType

#: RFC 7348's port.
VXLAN_PORT = 4789
#: The destination of the flood list: frames to nobody known, and to everybody.
_ANYBODY = "00:00:00:00:00:00"
#: The kind of link for each type of network, and the module that has it.
_KINDS = {
    NetworkType.VXLAN: ("vxlan", "vxlan"),
    NetworkType.GRE: ("gretap", "ip_gre"),
    NetworkType.VLAN: ("vlan", "8021q"),
}
#: GRE_KEY of linux/if_tunnel.h (the network's byte order is pyroute2's business): there is a key.
_GRE_KEY = 0x2000


class KernelCarrier:
    """VXLAN: one device a network, with a flood list; GRE: one device a peer; VLAN: one."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def lacks(self, kind: NetworkType) -> list[Lack]:
        """The kind of device that this kernel has not."""
        if kind not in _KINDS:
            return []
        device, module = _KINDS[kind]
        if kernel.knows_link_kind(device):
            return []
        return [Lack(f"this kernel has no {device} devices", f"`modprobe {module}`")]

    def carries(self, link: Link, network: Network) -> bool:
        """Tunnels and subinterfaces with the network's mark."""
        devices = {device for device, _ in _KINDS.values()}
        return link.kind in devices and link.alias == self._alias(network)

    def realize(self, ipr: IPRoute, network: Network, bridge: Link, ends: Ends | None) -> None:
        """Make the tunnels or the subinterface, in the bridge.

        Raises:
            Conflict: The segment id is taken by another device of this host.
            NotFound: The interface that is to carry the VLAN is not there.
            HostFault: There are peers, and this host has no underlay address.
        """
        match network.type:
            case NetworkType.VXLAN:
                tunnel = self._vxlan(ipr, network, ends)
                links.settle(ipr, tunnel, mtu=network.mtu, bridge=bridge, isolated=True)
                if ends is not None:
                    _flood_to(ipr, tunnel, {str(peer) for peer in ends.peers})
            case NetworkType.GRE if ends is not None:
                self._gretaps(ipr, network, bridge, ends)
            case NetworkType.VLAN:
                device = self._vlan(ipr, network)
                links.settle(ipr, device, mtu=network.mtu, bridge=bridge, isolated=True)

    def remove(self, ipr: IPRoute, network: Network) -> None:
        """Delete the network's devices."""
        for link in links.all_links(ipr):
            if self.carries(link, network):
                links.delete(ipr, link.name, self._alias(network))

    def differences(
        self, ipr: IPRoute, network: Network, bridge: Link, ends: Ends | None
    ) -> list[str]:
        """What of the devices, their ids and their peers is not as it should be."""
        match network.type:
            case NetworkType.VXLAN:
                return self._vxlan_differences(ipr, network, bridge, ends)
            case NetworkType.GRE:
                return self._gretap_differences(ipr, network, bridge, ends)
            case NetworkType.VLAN:
                name, detail = marks.vlan_name(network.id), "IFLA_VLAN_ID"
                return self._device_differences(ipr, network, bridge, name, detail)
        return []

    def _alias(self, network: Network) -> str:
        return self._site.alias("network", network.id)

    def _vxlan(self, ipr: IPRoute, network: Network, ends: Ends | None) -> Link:
        """The tunnel device, which learns addresses from what it receives.

        With a flood list and no control plane that would tell it where each guest is,
        that is what keeps known guests' frames from going to every peer. Guests cannot
        poison it, for nobody leaves a port with another's MAC address.
        """
        vni, name = segment_of(network), marks.vxlan_name(network.id)
        there = links.find(ipr, name)
        if there is not None and not _starts_at(there, ends):
            links.delete(ipr, name, self._alias(network))
        local = ends.local if ends is not None else None
        attributes: dict[str, Any] = {"vxlan_local": str(local)} if local else {}
        words = ["type", "vxlan", "id", str(vni), "dstport", str(VXLAN_PORT), "ttl", "64"]
        words += ["learning", *(["local", str(local)] if local else [])]
        return self._create(
            ipr,
            network,
            name,
            words,
            kind="vxlan",
            vxlan_id=vni,
            vxlan_port=VXLAN_PORT,
            vxlan_learning=True,
            vxlan_ttl=64,
            **attributes,
        )

    def _gretaps(self, ipr: IPRoute, network: Network, bridge: Link, ends: Ends) -> None:
        """A device a peer, none of which hands on to another what it received.

        Every host has a tunnel to every other one, so what came by one of them has
        reached all the others already (split horizon); handed on it would go round.
        """
        wanted = {marks.gretap_name(network.id, peer): peer for peer in sorted(ends.peers)}
        for link in links.all_links(ipr):
            if self.carries(link, network) and link.name not in wanted:
                links.delete(ipr, link.name, self._alias(network))
        key = segment_of(network)
        for name, peer in wanted.items():
            local = local_end(network, ends)
            words = ["type", "gretap", "local", str(local), "remote", str(peer)]
            words += ["key", str(key), "ttl", "64"]
            device = self._create(
                ipr,
                network,
                name,
                words,
                kind="gretap",
                gre_local=str(local),
                gre_remote=str(peer),
                gre_iflags=_GRE_KEY,
                gre_oflags=_GRE_KEY,
                gre_ikey=key,
                gre_okey=key,
                gre_ttl=64,
                gre_pmtudisc=1,
            )
            links.settle(ipr, device, mtu=network.mtu, bridge=bridge, isolated=True)

    def _vlan(self, ipr: IPRoute, network: Network) -> Link:
        interface, vid = interface_of(network), segment_of(network)
        parent = links.find(ipr, interface)
        if parent is None:
            raise NotFound(
                f"there is no interface {interface} on this host",
                hint="`ip link` lists those that there are",
            )
        words = ["link", interface, "type", "vlan", "id", str(vid)]
        name = marks.vlan_name(network.id)
        return self._create(ipr, network, name, words, kind="vlan", link=parent.index, vlan_id=vid)

    def _create(
        self, ipr: IPRoute, network: Network, name: str, words: list[str], **attributes: object
    ) -> Link:
        try:
            return links.create(
                ipr, name, self._alias(network), ["ip", "link", "add", name, *words], **attributes
            )
        except NetlinkError as error:
            if error.code != links.EXISTS:
                raise
            what = "VNI" if network.type is NetworkType.VXLAN else f"{network.type} segment"
            raise Conflict(
                f"{what} {network.segment_id} is taken by another device of this host",
                hint=f"`ip -d link show type {attributes['kind']}` shows it; choose another "
                "segment id",
            ) from error

    def _vxlan_differences(
        self, ipr: IPRoute, network: Network, bridge: Link, ends: Ends | None
    ) -> list[str]:
        name = marks.vxlan_name(network.id)
        wrong = self._device_differences(ipr, network, bridge, name, "IFLA_VXLAN_ID")
        tunnel = links.find(ipr, name)
        if tunnel is not None and ends is not None:
            wrong += _peer_differences(name, _flooded(ipr, tunnel), ends)
            if not _starts_at(tunnel, ends):
                wrong.append(f"{name} does not start at this host's address {ends.local}")
        return wrong

    def _gretap_differences(
        self, ipr: IPRoute, network: Network, bridge: Link, ends: Ends | None
    ) -> list[str]:
        there = {link.name for link in links.all_links(ipr) if self.carries(link, network)}
        wanted = there
        if ends is not None:
            wanted = {marks.gretap_name(network.id, peer) for peer in ends.peers}
        wrong = [f"the tunnel {name} leads to no host of the network" for name in there - wanted]
        for name in sorted(wanted):
            wrong += self._device_differences(ipr, network, bridge, name, "IFLA_GRE_OKEY")
        return wrong

    def _device_differences(
        self, ipr: IPRoute, network: Network, bridge: Link, name: str, detail: str
    ) -> list[str]:
        device = links.find(ipr, name)
        if device is None:
            what = "subinterface" if network.type is NetworkType.VLAN else "tunnel"
            return [f"the {what} {name} is not there"]
        alias, mtu = self._alias(network), network.mtu
        wrong = links.differences(device, alias=alias, mtu=mtu, master=bridge, isolated=True)
        segment = device.details.get(detail)
        if segment != network.segment_id:
            what = "VNI" if network.type is NetworkType.VXLAN else "segment id"
            wrong.append(f"{name} has the {what} {segment}, not {network.segment_id}")
        return wrong


def _starts_at(tunnel: Link, ends: Ends | None) -> bool:
    """Whether a VXLAN device has this host's underlay address, where one is told."""
    if ends is None or ends.local is None:
        return True
    return bool(tunnel.details.get("IFLA_VXLAN_LOCAL") == str(ends.local))


def _flooded(ipr: IPRoute, tunnel: Link) -> set[str]:
    return {
        entry.get("NDA_DST")
        for entry in ipr.fdb("dump", ifindex=tunnel.index)
        if entry.get("NDA_LLADDR") == _ANYBODY and entry.get("NDA_DST")
    }


def _peer_differences(name: str, there: set[str], ends: Ends) -> list[str]:
    wanted = {str(peer) for peer in ends.peers}
    return [
        *(f"{name} does not lead to the host {peer}" for peer in sorted(wanted - there)),
        *(f"{name} leads to {peer}, which has no part in it" for peer in sorted(there - wanted)),
    ]


def _flood_to(ipr: IPRoute, tunnel: Link, peers: set[str]) -> None:
    there = _flooded(ipr, tunnel)
    words = ["bridge", "fdb"]
    for peer in sorted(peers - there):
        ipr.fdb("append", ifindex=tunnel.index, lladdr=_ANYBODY, dst=peer)
        command = [*words, "append", _ANYBODY, "dev", tunnel.name, "dst", peer]
        changes.record(f"Added the peer {peer} to {tunnel.name}", command)
    for peer in sorted(there - peers):
        # What was learned of its guests too: they may be behind another host by now.
        for mac in _learned(ipr, tunnel, peer):
            ipr.fdb("del", ifindex=tunnel.index, lladdr=mac, dst=peer)
        command = [*words, "delete", _ANYBODY, "dev", tunnel.name, "dst", peer]
        changes.record(f"Took the peer {peer} from {tunnel.name}", command)


def _learned(ipr: IPRoute, tunnel: Link, peer: str) -> list[str]:
    """The addresses that a tunnel sends to a peer, that of everybody among them."""
    return [
        entry.get("NDA_LLADDR")
        for entry in ipr.fdb("dump", ifindex=tunnel.index)
        if entry.get("NDA_DST") == peer
    ]

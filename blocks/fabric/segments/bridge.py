"""A network's bridge on this host, with what its driver puts into it.

Neutron's Linux bridge agent made the same bridges (`brq...`).
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address

from pyroute2 import IPRoute

from blocks import marks
from blocks.errors import HostFault, NotFound, Unsupported
from blocks.fabric import kernel, links
from blocks.fabric.links import Link, with_links
from blocks.fabric.segments.carrier import Carrier, Ends, Lack, interface_of, segment_of
from blocks.fabric.segments.linuxbridge import KernelCarrier
from blocks.fabric.segments.openvswitch import VswitchCarrier
from blocks.fabric.segments.vswitch import Vswitch
from blocks.fabric.site import Site
from blocks.resources import Network, NetworkDriver, NetworkType

#: What every network's bridge needs, and the modules that have it.
_BRIDGE_KINDS = {"bridge": "bridge", "veth": "veth", "tun": "tun"}
#: Types whose frames leave the host by more than the bridge itself.
_CARRIED = (NetworkType.VLAN, NetworkType.VXLAN, NetworkType.GRE)


class Segments:
    """One bridge a network, and the driver of each network for what leads further.

    Args:
        site: Whose.
        vswitch: The Open vSwitch of this host, whether it runs or not.
    """

    def __init__(self, site: Site, vswitch: Vswitch) -> None:
        self._site = site
        # In the order in which they are asked: the kernel's own devices are the faster ones.
        self._carriers: dict[NetworkDriver, Carrier] = {
            NetworkDriver.LINUXBRIDGE: KernelCarrier(site),
            NetworkDriver.OPENVSWITCH: VswitchCarrier(site, vswitch),
        }

    def choose(self, kind: NetworkType) -> NetworkDriver:
        """The driver by which this host can do networks of a type.

        Raises:
            Unsupported: None can; the message names what is missing for each, the hint
                what would bring it.
        """
        lacks = _bridge_lacks()
        if not lacks:
            for driver, carrier in self._carriers.items():
                missing = carrier.lacks(kind)
                if not missing:
                    return driver
                lacks += missing
        raise _unsupported(kind, lacks)

    def check(self, network: Network) -> None:
        """Refuse a network that this host cannot do by the network's own driver.

        Raises:
            InvalidRequest: No segment id, or no interface for a VLAN.
            Unsupported: Something is missing here; the message names it.
        """
        if network.type in _CARRIED:
            segment_of(network)
        if network.type is NetworkType.VLAN:
            interface_of(network)
        lacks = _bridge_lacks() + self._carriers[network.driver].lacks(network.type)
        if lacks:
            raise _unsupported(network.type, lacks)

    def bridge(self, network: Network) -> str:
        """The operator's bridge where the network names one, else our own."""
        return network.physical_bridge or marks.bridge_name(network.id)

    def realize(
        self,
        network: Network,
        peers: Sequence[IPv4Address] | None,
        local: IPv4Address | None,
    ) -> None:
        """Make the bridge and what carries its frames, with tunnels to exactly these peers.

        Without peers (None) the tunnels that there are stay.

        Raises:
            NotFound: The operator's bridge, or the VLANs' interface, is not there.
            HostFault: The operator's bridge hides its frames from nftables.
            Conflict: The segment id is taken by another device.
        """
        ends = Ends.of(peers, local)

        def make(ipr: IPRoute) -> None:
            if network.physical_bridge:
                _require_operators(ipr, network.physical_bridge)
                return
            alias = self._site.alias("network", network.id)
            bridge = links.ensure_bridge(ipr, self.bridge(network), alias, network.mtu)
            if network.type in _CARRIED:
                self._carriers[network.driver].realize(ipr, network, bridge, ends)

        with self._site.locked(network.id):
            with_links(None, make)

    def remove(self, network: Network) -> bool:
        """Remove bridge and carrier, unless a guest, DHCP or router port is plugged in.

        Returns:
            Whether nothing of the segment is left. An operator's bridge stays, as it
            is not part of the segment.
        """
        if network.physical_bridge:
            return True
        carrier = self._carriers[network.driver]

        def unmake(ipr: IPRoute) -> bool:
            bridge = links.find(ipr, self.bridge(network))
            if bridge is not None:
                ports = [link for link in links.all_links(ipr) if link.master == bridge.index]
                if not all(carrier.carries(port, network) for port in ports):
                    return False
            if network.type in _CARRIED:
                carrier.remove(ipr, network)
            links.delete(ipr, self.bridge(network), self._site.alias("network", network.id))
            return True

        with self._site.locked(network.id):
            return with_links(None, unmake)

    def differences(
        self,
        network: Network,
        peers: Sequence[IPv4Address] | None = None,
        local: IPv4Address | None = None,
    ) -> list[str]:
        """What of bridge and carrier is not as `realize` makes it.

        Args:
            network: The network.
            peers: The other hosts that it is on; None means that they are not looked at.
            local: This host's underlay address.
        """
        ends = Ends.of(peers, local)

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
            if network.type in _CARRIED:
                carrier = self._carriers[network.driver]
                wrong += carrier.differences(ipr, network, bridge, ends)
            return wrong

        return with_links(None, look)


def _bridge_lacks() -> list[Lack]:
    """What this kernel has not that a network of any type needs."""
    lacks = [
        Lack(f"this kernel has no {kind} devices", f"`modprobe {module}`")
        for kind, module in _BRIDGE_KINDS.items()
        if not kernel.knows_link_kind(kind)
    ]
    if not kernel.tracks_connections_in_bridges() and not kernel.has_br_netfilter():
        what = "this kernel has neither nf_conntrack_bridge nor br_netfilter"
        lacks.append(Lack(what, "`modprobe nf_conntrack_bridge` or `modprobe br_netfilter`"))
    return lacks


def _unsupported(kind: NetworkType, lacks: Sequence[Lack]) -> Unsupported:
    remedies = [lack.remedy for lack in lacks]
    return Unsupported(
        f"this host can do no networks of type {kind}: " + "; ".join(lack.what for lack in lacks),
        hint=f"{', or '.join(remedies)}; or choose another type",
    )


def _require_operators(ipr: IPRoute, name: str) -> None:
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


def _shows_its_frames(bridge: Link) -> bool:
    if kernel.tracks_connections_in_bridges():
        return True
    return bool(bridge.details.get("IFLA_BR_NF_CALL_IPTABLES")) or kernel.calls_iptables()

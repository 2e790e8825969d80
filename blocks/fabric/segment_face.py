"""The part of a host's network that the steps 4 and 31 see: segments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import IPv4Address

from blocks.fabric.dhcp import Dhcp
from blocks.fabric.firewall import Firewall
from blocks.fabric.metadata import Metadata
from blocks.fabric.segments import Segments
from blocks.fabric.site import Site
from blocks.resources import Network, NetworkDriver, NetworkType


class SegmentFace:
    """Segments on this host: what it can do, made, compared and removed."""

    _site: Site
    _segments: Segments
    _dhcp: Dhcp
    _metadata: Metadata
    _firewall: Firewall

    def check(self, network: Network) -> None:
        """Refuse a network that this host cannot realize.

        Raises:
            Unsupported: The kernel lacks something; the message names it.
            InvalidRequest: The network's description is not complete.
        """
        self._segments.check(network)

    def choose_driver(self, kind: NetworkType) -> NetworkDriver:
        """The driver by which this host can do networks of a type, asked of kernel and OVS.

        Raises:
            Unsupported: None can; what is missing for each, and what would bring it.
        """
        return self._segments.choose(kind)

    def realize_segment(
        self,
        network: Network,
        peers: Sequence[IPv4Address] | None = None,
        local: IPv4Address | None = None,
    ) -> None:
        """Make a network's bridge, and what carries its frames to the other hosts.

        Again with other peers it brings the tunnels to exactly these.

        Args:
            network: The network.
            peers: The underlay addresses of the other hosts it is on; None leaves the
                tunnels that there are.
            local: This host's underlay address.

        Raises:
            NotFound: The operator's bridge, or the VLANs' interface, is not there.
            Conflict: The segment id, or a name, is taken by something that is not ours.
            Unsupported: Open vSwitch's userspace datapath does not hold `local`.
            HostFault: There are peers and no `local`; or Open vSwitch does not answer.
        """
        with self._site.locked(_presence(network)):
            self._segments.realize(network, peers, local)

    def remove_segment(self, network: Network) -> bool:
        """Remove a network's bridge and tunnel, unless something is plugged into it.

        Returns:
            Whether it is gone; an operator's bridge is none of ours, and stays.
        """
        gone = self._segments.remove(network)
        if gone:
            self._firewall.forget_network(network)
        return gone

    def leave_network(self, network: Network, unused: Callable[[], bool]) -> bool:
        """Remove all of a network from this host, which does not anchor it, if nobody uses it.

        Args:
            network: The network.
            unused: Whether nothing that is recorded needs it here. Asked when no other
                process can realize the segment, so that whoever records a port first and
                realizes the segment then does not lose it.

        Returns:
            Whether it is gone.
        """
        with self._site.locked(_presence(network)):
            if not unused():
                return False
            self._metadata.stop(network)
            self._dhcp.stop(network)
            return self.remove_segment(network)

    def segment_differences(
        self,
        network: Network,
        peers: Sequence[IPv4Address] | None = None,
        local: IPv4Address | None = None,
    ) -> list[str]:
        """What of bridge, tunnels or VLAN is not as `realize_segment` makes it, in words.

        Args:
            network: The network.
            peers: The other hosts it is on; None means that they are not looked at.
            local: This host's underlay address.
        """
        return self._segments.differences(network, peers, local)

    def segment_bridge(self, network: Network) -> str:
        """The name of the bridge that the network's taps are in."""
        return self._segments.bridge(network)


def _presence(network: Network) -> str:
    """The lock of whoever decides whether a network is on this host."""
    return f"{network.id}.presence"

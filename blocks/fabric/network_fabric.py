"""The network of one host, as the steps 18 and 31 to 38 see it."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path

from blocks.fabric.dhcp import Dhcp, DhcpLease
from blocks.fabric.firewall import Firewall
from blocks.fabric.ports import Ports
from blocks.fabric.segments import LinuxBridge, SegmentDriver
from blocks.fabric.site import Site
from blocks.resources import Network, Port, PortBinding, Subnet


class NetworkFabric:
    """Segments, DHCP, routers, metadata, taps and their firewall on this host.

    Every method may be called again, by several threads and processes at once; what is
    there already is left as it is, and what is gone already is not missed. Every change
    is recorded (`blocks.changes`).

    Args:
        directory: `FIFTY_HOME/networks`.
        site: The state store's id, four hex digits.
        host: This host's name in the scheduler.
    """

    def __init__(self, directory: Path, site: str, host: str) -> None:
        self._site = Site(directory, site, host)
        self._segments: SegmentDriver = LinuxBridge(self._site)
        self._dhcp = Dhcp(self._site, self._segments)
        self._ports = Ports(self._site, self._segments)
        self._firewall = Firewall(self._site)

    def check(self, network: Network) -> None:
        """Refuse a network that this host cannot realize.

        Raises:
            Unsupported: The kernel lacks something; the message names it.
            InvalidRequest: The network's description is not complete.
        """
        self._segments.check(network)

    def realize_segment(
        self,
        network: Network,
        peers: Sequence[IPv4Address] = (),
        local: IPv4Address | None = None,
    ) -> None:
        """Make a network's bridge, and for vxlan the tunnel to the other hosts.

        Args:
            network: The network.
            peers: The underlay addresses of the other hosts it is on; the tunnel floods
                to exactly these.
            local: This host's underlay address.

        Raises:
            NotFound: The operator's bridge is not there.
            Conflict: The VNI, or a name, is taken by something that is not ours.
        """
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

    def segment_bridge(self, network: Network) -> str:
        """The name of the bridge that the network's taps are in."""
        return self._segments.bridge(network)

    def serve_dhcp(self, network: Network, subnet: Subnet, dhcp_port: Port) -> None:
        """Make the network's DHCP namespace with its leg, and run dnsmasq in it.

        Raises:
            HostFault: dnsmasq does not start; the message is what it says.
        """
        self._dhcp.serve(network, subnet, dhcp_port)

    def stop_dhcp(self, network: Network) -> None:
        """Stop dnsmasq; remove the namespace, its leg and the files."""
        self._dhcp.stop(network)

    def reserve(self, binding: PortBinding) -> None:
        """Reserve the port's address for its MAC address, and give it its name in DNS."""
        self._dhcp.reserve(binding)

    def release(self, port: Port) -> None:
        """Forget the port's reservation, and end the lease that its guest took."""
        self._dhcp.release(port)

    def lease(self, port: Port) -> DhcpLease | None:
        """The lease that the port's guest has taken; None if it has not."""
        return self._dhcp.lease(port)

    def plug(self, binding: PortBinding, owner_uid: int | None) -> None:
        """Make the port's tap, in its network's bridge, for a user's QEMU to open."""
        self._ports.plug(binding, owner_uid)

    def unplug(self, port: Port) -> None:
        """Delete the port's tap."""
        self._ports.unplug(port)

    def carrier(self, port: Port) -> bool:
        """Whether a QEMU holds the port's tap open.

        Raises:
            Transient: The tap is not there.
        """
        return self._ports.carrier(port)

    def protect(self, binding: PortBinding) -> None:
        """Apply the port's anti-spoofing and security groups in one transaction."""
        self._firewall.protect(binding)

    def unprotect(self, port: Port) -> None:
        """Remove the port's rules; the tables go with the last port."""
        self._firewall.unprotect(port)

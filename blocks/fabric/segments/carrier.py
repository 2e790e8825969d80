"""What carries a network's frames from its bridge to other hosts: the drivers' interface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Protocol

from pyroute2 import IPRoute

from blocks.errors import HostFault, InvalidRequest
from blocks.fabric.links import Link
from blocks.resources import Network, NetworkType


@dataclass(frozen=True)
class Lack:
    """Something that a host would need for a type of network.

    Attributes:
        what: What is missing ("the kernel has no gretap devices").
        remedy: What would bring it ("modprobe ip_gre").
    """

    what: str
    remedy: str


@dataclass(frozen=True)
class Ends:
    """Where a tunnel's ends are, on the network that joins the hosts.

    Attributes:
        peers: The underlay addresses of the other hosts that the network is on.
        local: This host's; None where it has none, and so no peers either.
    """

    peers: frozenset[IPv4Address] = frozenset()
    local: IPv4Address | None = None

    @classmethod
    def of(cls, peers: Sequence[IPv4Address] | None, local: IPv4Address | None) -> Ends | None:
        """The ends of a tunnel to these peers, if they are known; no host is its own peer."""
        return None if peers is None else cls(frozenset(peers) - {local}, local)


class Carrier(Protocol):
    """A driver: what is in a network's bridge besides its ports, and leads to other hosts.

    What it puts there is isolated from the bridge's other isolated ports: from its other
    tunnels, and from the DHCP server's leg, for every host answers its own guests (`dhcp`).
    """

    def lacks(self, kind: NetworkType) -> list[Lack]:
        """What this host would need for networks of this type; nothing if it can do them."""
        ...

    def carries(self, link: Link, network: Network) -> bool:
        """Whether a link in the network's bridge is the carrier's, and not a port."""
        ...

    def realize(self, ipr: IPRoute, network: Network, bridge: Link, ends: Ends | None) -> None:
        """Make what carries the frames, with tunnels to exactly these peers.

        Without ends, the tunnels that there are stay.
        """
        ...

    def remove(self, ipr: IPRoute, network: Network) -> None:
        """Remove what `realize` made; already gone is fine."""
        ...

    def differences(
        self, ipr: IPRoute, network: Network, bridge: Link, ends: Ends | None
    ) -> list[str]:
        """What is not as `realize` makes it; without ends, the peers are not looked at."""
        ...


def segment_of(network: Network) -> int:
    """The network's segment id.

    Raises:
        InvalidRequest: It has none.
    """
    if network.segment_id is None:
        raise InvalidRequest(f"the {network.type} network {network.name} has no segment id")
    return network.segment_id


def interface_of(network: Network) -> str:
    """The interface of the host's that carries the network's VLAN.

    Raises:
        InvalidRequest: The network names none.
    """
    if network.physical_interface is None:
        raise InvalidRequest(
            f"the vlan network {network.name} names no interface",
            hint="name the interface that carries the VLANs",
        )
    return network.physical_interface


def local_end(network: Network, ends: Ends) -> IPv4Address:
    """This host's underlay address.

    Raises:
        HostFault: It has none.
    """
    if ends.local is None:
        raise HostFault(
            f"the {network.type} network {network.name} is on other hosts too, and this host "
            "has no underlay address",
            hint="set FIFTY_UNDERLAY_IP to this host's address on the network that joins them",
        )
    return ends.local

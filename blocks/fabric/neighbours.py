"""Whether a guest is there on its network, asked from the network's DHCP namespace."""

from __future__ import annotations

from ipaddress import IPv4Address

from pyroute2 import IPRoute

from blocks import marks
from blocks.errors import HostFault
from blocks.fabric import arp, legs
from blocks.fabric.links import with_links
from blocks.resources import FixedIp, Network, Port


def answers(port: Port, network: Network, timeout_s: float) -> bool:
    """Whether the guest answers for one of its addresses with its own MAC address.

    Args:
        port: Whose addresses are asked for, by ARP: a guest cannot have that closed.
        network: Its network.
        timeout_s: How long to wait for each address, in seconds.

    Raises:
        HostFault: The DHCP namespace, or its leg in that subnet, is not there.
    """
    namespace = marks.dhcp_namespace(network.id)
    for fixed in port.addresses:

        def leg(ipr: IPRoute, fixed: FixedIp = fixed) -> tuple[str, IPv4Address] | None:
            return legs.towards(ipr, fixed.address)

        found = with_links(namespace, leg)
        if found is None:
            raise HostFault(
                f"no leg leads to {fixed.address}", hint="run the step that makes it again"
            )
        name, own = found
        if arp.ask(namespace, name, own, fixed.address, timeout_s) == port.mac:
            return True
    return False

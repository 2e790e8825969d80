"""What of a network, a router and a port is on a host when all of it is there.

By name and owner, as the inventory tells it: what is expected is compared with what is found.
"""

from __future__ import annotations

from collections.abc import Sequence

from blocks import marks
from blocks.fabric.outside import uplink_table
from blocks.fabric.segments import vswitch_inventory
from blocks.fabric.site import Site
from blocks.inventory import Found
from blocks.resources import Network, NetworkDriver, NetworkType, Port, PortBinding, Router, Subnet


def of_network(
    site: Site, network: Network, subnets: Sequence[Subnet], dhcp_port: Port | None
) -> list[Found]:
    """The parts of a network that this host anchors.

    Args:
        site: Whose.
        network: The network.
        subnets: Its subnets.
        dhcp_port: The port of its DHCP server; an external network has none.
    """
    parts = []
    if not network.physical_bridge:
        parts.append(_link(marks.bridge_name(network.id), network.id))
    parts += _carrier(network)
    if network.external:
        return parts + _outside(site, network)
    parts.append(_namespace(marks.dhcp_namespace(network.id), network.id))
    if dhcp_port is not None:
        parts.append(_link(marks.tap_name(dhcp_port.id), dhcp_port.id))
    if any(subnet.dhcp for subnet in subnets):
        parts.append(Found(kind="process", name="dnsmasq", owner=network.id))
    parts.append(Found(kind="process", name="metadata", owner=network.id))
    return parts


def _carrier(network: Network) -> list[Found]:
    """What leads from a network's bridge to other hosts, whichever these are."""
    if network.driver is NetworkDriver.OPENVSWITCH:
        outer, inner = marks.vswitch_cable_names(network.id)
        parts = [_link(outer, network.id), _link(inner, network.id)]
        parts.append(Found(kind=vswitch_inventory.PORT, name=inner, owner=network.id))
        if network.type is not NetworkType.VLAN:
            bridge = marks.vswitch_name(network.id)
            parts.append(Found(kind=vswitch_inventory.BRIDGE, name=bridge, owner=network.id))
        return parts
    if network.type is NetworkType.VXLAN:
        return [_link(marks.vxlan_name(network.id), network.id)]
    if network.type is NetworkType.VLAN:
        return [_link(marks.vlan_name(network.id), network.id)]
    return []


def _outside(site: Site, network: Network) -> list[Found]:
    """The far end of an external network; with `bridge` it is the operator's."""
    if network.outside == "closed":
        return [
            _namespace(marks.outside_namespace(network.id), network.id),
            _link(marks.tap_name(network.id), network.id),
        ]
    if network.outside == "uplink":
        table = uplink_table(site, network.id)
        return [Found(kind="nft", name=f"{table['family']} {table['table']}", owner=network.id)]
    return []


def of_router(router: Router) -> list[Found]:
    """The parts of a router; one without legs and gateway has none."""
    legs = [*router.legs, *([router.gateway] if router.gateway else [])]
    parts = [_link(marks.tap_name(leg.port.id), leg.port.id) for leg in legs]
    if legs:
        parts.append(_namespace(marks.router_namespace(router.id), router.id))
    return parts


def of_port(site: Site, binding: PortBinding) -> list[Found]:
    """The parts of a guest's port."""
    port, network = binding.port, binding.network
    parts = []
    if port.tap:
        parts.append(_link(port.tap, port.id))
    table = marks.firewall_table(site.name)
    parts.append(Found(kind="nft", name=f"{table} {port.id}", owner=port.id))
    directory = site.of_network(network.id)
    served = {subnet.id for subnet in binding.subnets if subnet.dhcp}
    if any(fixed.subnet_id in served for fixed in port.addresses):
        file = directory / "dhcp" / "hosts" / port.id
        parts.append(Found(kind="reservation", name=str(file), owner=port.id))
    for fixed in port.addresses:
        folder = directory / "metadata" / "guests" / str(fixed.address)
        parts.append(Found(kind="metadata", name=str(folder), owner=port.id))
    return parts


def _link(name: str, owner: str) -> Found:
    return Found(kind="link", name=name, owner=owner)


def _namespace(name: str, owner: str) -> Found:
    return Found(kind="namespace", name=name, owner=owner)

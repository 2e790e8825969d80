"""Our mark: how everything that we make on a host is named, and told from other people's.

A *site* is one state store (four hex digits, chosen by `fifty init`): two of them can
share a host without touching each other's things. Names are derived from recorded ids,
so that do and undo find the same thing without remembering anything. Link names have at
most 15 characters (IFNAMSIZ), so they hold the first 11 hex digits of the id, as Neutron's.
"""

from __future__ import annotations

import hashlib
from ipaddress import IPv4Address

#: XML namespace of the element that marks a domain in libvirt's metadata.
DOMAIN_METADATA_URI = "urn:fifty-steps:instance:1"

NAMESPACE_PREFIX = "fifty-"

#: The keys of our mark in Open vSwitch's `external_ids`: the site, and whom it is for.
VSWITCH_SITE, VSWITCH_OWNER = "fifty-site", "fifty-id"


def _short(identifier: str) -> str:
    return identifier.replace("-", "")[:11]


def _digest(network_id: str, peer: IPv4Address) -> str:
    return hashlib.sha256(f"{network_id} {peer}".encode()).hexdigest()[:11]


def bridge_name(network_id: str) -> str:
    """The bridge of a network."""
    return f"brf{_short(network_id)}"


def vxlan_name(network_id: str) -> str:
    """The tunnel device of a vxlan network."""
    return f"vx-{_short(network_id)}"


def vlan_name(network_id: str) -> str:
    """The subinterface of a vlan network, on the host's interface that carries its VLAN."""
    return f"vl-{_short(network_id)}"


def gretap_name(network_id: str, peer: IPv4Address) -> str:
    """The kernel's tunnel device of a gre network to one other host."""
    return f"gr-{_digest(network_id, peer)}"


def vswitch_name(network_id: str) -> str:
    """The Open vSwitch bridge that holds a network's tunnel ports."""
    return f"ovf{_short(network_id)}"


def vswitch_tunnel_name(network_id: str, peer: IPv4Address) -> str:
    """The Open vSwitch port that is a network's tunnel to one other host."""
    return f"ot-{_digest(network_id, peer)}"


def vswitch_cable_names(network_id: str) -> tuple[str, str]:
    """The veth pair between a network's bridge and Open vSwitch, the bridge's end first.

    Neutron's hybrid plugging has these names, but a pair for each port.
    """
    return f"qvb{_short(network_id)}", f"qvo{_short(network_id)}"


def tap_name(port_id: str) -> str:
    """A guest port's tap, or the bridge's end of a DHCP or router port's veth pair."""
    return f"tap{_short(port_id)}"


def dhcp_leg_name(port_id: str) -> str:
    """The end of a DHCP port's veth pair inside the DHCP namespace."""
    return f"ns-{_short(port_id)}"


def router_leg_name(port_id: str) -> str:
    """The end of a router interface's veth pair inside the router's namespace."""
    return f"qr-{_short(port_id)}"


def gateway_leg_name(port_id: str) -> str:
    """The end of a router gateway's veth pair inside the router's namespace."""
    return f"qg-{_short(port_id)}"


def dhcp_namespace(network_id: str) -> str:
    """The namespace of a network's DHCP and metadata servers."""
    return f"{NAMESPACE_PREFIX}dhcp-{network_id}"


def router_namespace(router_id: str) -> str:
    """The namespace of a router."""
    return f"{NAMESPACE_PREFIX}router-{router_id}"


def outside_namespace(network_id: str) -> str:
    """The namespace in which a closed external network ends."""
    return f"{NAMESPACE_PREFIX}outside-{network_id}"


def domain_name(instance_id: str, name: str) -> str:
    """The libvirt domain of an instance (its UUID is the instance's id)."""
    return f"fifty-{instance_id[:8]}-{name}"


def firewall_table(site: str) -> str:
    """The nft table (families bridge and inet) that holds this site's ports."""
    return f"fifty_{site}"


def link_alias(site: str, kind: str, identifier: str) -> str:
    """The interface alias that marks a link as ours: `fifty:SITE:KIND:ID`."""
    return f"fifty:{site}:{kind}:{identifier}"


def parse_link_alias(alias: str) -> tuple[str, str, str] | None:
    """Split an alias into site, kind and id.

    Args:
        alias: A link's alias as the kernel gives it.

    Returns:
        (site, kind, id), or None where the alias is not one of ours.
    """
    parts = alias.split(":")
    if len(parts) != 4 or parts[0] != "fifty":
        return None
    return parts[1], parts[2], parts[3]

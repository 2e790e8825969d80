"""Networks, subnets, ports, routers and security groups (Neutron's words)."""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network
from typing import Literal

from blocks.resources.base import MacAddress, Resource, ResourceName


class NetworkType(StrEnum):
    """How a segment is told from the others on the wire."""

    FLAT = "flat"
    LOCAL = "local"
    VLAN = "vlan"
    VXLAN = "vxlan"
    GRE = "gre"


class NetworkDriver(StrEnum):
    """What carries a network's frames between hosts; its ports are in a Linux bridge always."""

    LINUXBRIDGE = "linuxbridge"
    OPENVSWITCH = "openvswitch"


class Network(Resource):
    """A layer-2 segment.

    Attributes:
        driver: What makes its tunnel or VLAN, chosen when it is created.
        segment_id: The VNI of a vxlan, the key of a gre, the VLAN id of a vlan network.
        physical_interface: For `vlan`: the host's interface that carries the VLANs.
        physical_bridge: For `flat`: an existing bridge of the operator's to use instead
            of one of our own; none means that we make one.
        external: Routers may have their gateway in it; guests may not.
        outside: What an external network's bridge leads to: `closed` (a namespace that
            holds the gateway's address, and nothing behind it), `uplink` (this host's
            default route, masqueraded), `bridge` (the operator joins it themselves).
        zone: Its conntrack zone (1 to 65535), so that equal addresses of two tenants
            never meet.
        anchor_host: The host that serves its DHCP and router, where its bridge stays
            even when no guest is plugged.
        port_security: What its ports get: anti-spoofing and security groups. An admin may
            turn it off.
    """

    id: str
    tenant_id: str
    name: ResourceName
    type: NetworkType
    driver: NetworkDriver = NetworkDriver.LINUXBRIDGE
    segment_id: int | None = None
    physical_interface: str | None = None
    physical_bridge: str | None = None
    mtu: int = 1500
    external: bool = False
    shared: bool = False
    outside: Literal["closed", "uplink", "bridge"] = "closed"
    zone: int
    anchor_host: str
    port_security: bool = True


class Route(Resource):
    """A static route: of a router, or one that the guests are told (Neutron's host routes)."""

    destination: IPv4Network
    nexthop: IPv4Address


class Pool(Resource):
    """A range of addresses that may be given out, both ends included."""

    first: IPv4Address
    last: IPv4Address


class Subnet(Resource):
    """The addresses of a network.

    Attributes:
        dhcp_address: Where its DHCP server answers (an address of the pool, held by the
            network's DHCP port); none without DHCP.
        lease_s: The DHCP lease's length in seconds.
        host_routes: What the guests are told besides the default route: by DHCP's option 121,
            without DHCP by the config drive.
    """

    id: str
    network_id: str
    cidr: IPv4Network
    gateway: IPv4Address | None = None
    dns: tuple[IPv4Address, ...] = ()
    pools: tuple[Pool, ...] = ()
    dhcp: bool = True
    dhcp_address: IPv4Address | None = None
    lease_s: int = 86400
    host_routes: tuple[Route, ...] = ()


class FixedIp(Resource):
    """An address that a port holds."""

    subnet_id: str
    address: IPv4Address


class PortKind(StrEnum):
    """What a port is for (Neutron's `device_owner`)."""

    COMPUTE = "compute"
    DHCP = "dhcp"
    ROUTER_INTERFACE = "router_interface"
    ROUTER_GATEWAY = "router_gateway"
    FLOATING_IP = "floating_ip"


class Port(Resource):
    """A plug in a network; recorded before the device exists (the seed's step 23).

    Attributes:
        index: The order of the ports within one instance, from 0.
        mac: None until step 19 has chosen it.
        tap: The tap device's name on its host, chosen when the port is recorded.
        mark: A number (31 bits) that names the port in packet marks; unique.
        host: Where it is (to be) plugged.
        port_security: Without it neither anti-spoofing nor security groups hold.
    """

    id: str
    tenant_id: str
    network_id: str
    kind: PortKind
    device_id: str | None = None
    index: int = 0
    mac: MacAddress | None = None
    addresses: tuple[FixedIp, ...] = ()
    security_groups: tuple[str, ...] = ()
    tap: str | None = None
    mark: int
    host: str | None = None
    port_security: bool = True


class RouterLeg(Resource):
    """A router's interface in a network."""

    port: Port
    network: Network
    subnet: Subnet


class FloatingIp(Resource):
    """An address outside that leads to a port inside (Neutron's floating IP).

    Attributes:
        id: That of the port of kind `floating_ip` that holds the address.
        network_id: The external network.
        port_id: The guest's port; None where it is not attached.
        fixed_address: The port's address that it leads to.
        router_id: The router that translates it.
        former_router_id: The one that did so before, as long as it has not been made to forget it.
    """

    id: str
    tenant_id: str
    network_id: str
    address: IPv4Address
    port_id: str | None = None
    fixed_address: IPv4Address | None = None
    router_id: str | None = None
    former_router_id: str | None = None


class Router(Resource):
    """A router: legs in tenant networks and, perhaps, a gateway to the outside.

    Attributes:
        snat: Whether what goes out gets the gateway's address.
        routes: Static routes besides those to its networks and its gateway.
        floating_ips: Those that it translates.
    """

    id: str
    tenant_id: str
    name: ResourceName
    host: str
    snat: bool = True
    legs: tuple[RouterLeg, ...] = ()
    gateway: RouterLeg | None = None
    routes: tuple[Route, ...] = ()
    floating_ips: tuple[FloatingIp, ...] = ()


class SecurityGroupRule(Resource):
    """What may pass; what no rule lets pass is dropped.

    Attributes:
        protocol: None means all.
        port_min: First destination port (or ICMP type), `port_max` the last (or code).
        remote_cidr: The other end; none and no group means anyone.
        remote_group_id: The other end is any port of this group.
    """

    id: str
    direction: Literal["ingress", "egress"]
    protocol: Literal["tcp", "udp", "icmp"] | None = None
    port_min: int | None = None
    port_max: int | None = None
    remote_cidr: IPv4Network | None = None
    remote_group_id: str | None = None


class SecurityGroup(Resource):
    """A named set of rules."""

    id: str
    tenant_id: str
    name: ResourceName
    rules: tuple[SecurityGroupRule, ...] = ()


class FirewallRule(Resource):
    """A rule as the firewall takes it: remote groups resolved into addresses."""

    direction: Literal["ingress", "egress"]
    protocol: Literal["tcp", "udp", "icmp"] | None = None
    port_min: int | None = None
    port_max: int | None = None
    remotes: tuple[IPv4Network, ...] | None = None


class PortBinding(Resource):
    """All that a host must know to realize one instance port."""

    port: Port
    network: Network
    subnets: tuple[Subnet, ...]
    rules: tuple[FirewallRule, ...] = ()
    host_name: str = ""

"""What callers ask for about networks: the parameters of the flows that make and change them."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from pydantic import Field

from blocks.resources.address_forms import (
    Address,
    Cidr,
    CidrText,
    Gateway,
    Pools,
    Protocol,
    RouteForm,
)
from blocks.resources.base import ResourceName
from blocks.resources.form import CredentialsName, Form

_BRIDGE = r"^[A-Za-z0-9._-]{1,15}$"


class ExternalNetworkForm(Form):
    """An external network that is to be made with the tenant network and its router."""

    name: ResourceName = Field(title="Name", description="What the external network is called.")
    cidr: CidrText = Field(title="CIDR", description="Its IPv4 addresses.")
    gateway: Gateway | None = Field(
        default=None, title="Gateway", description="The way on from there; empty: its first one."
    )
    pool: Pools = Field(
        default=(),
        title="Pools",
        description="`FIRST-LAST`: what routers and floating IPs get; empty: all addresses.",
    )
    outside: Literal["closed", "uplink", "bridge"] = Field(
        default="closed",
        title="Outside",
        description="What it leads to: nothing, this host's uplink, or the physical bridge.",
    )
    physical_bridge: str | None = Field(
        default=None,
        pattern=_BRIDGE,
        title="Physical bridge",
        description="A bridge of this host that is there already.",
    )


class NetworkRequest(Form):
    """The network that is wanted."""

    name: ResourceName = Field(
        title="Name", description="Letters, digits, dot, underscore and hyphen, 63 at most."
    )
    cidr: CidrText = Field(
        title="CIDR", description="The subnet's IPv4 addresses, such as `192.168.0.0/24`."
    )
    router: ResourceName | None = Field(
        default=None,
        title="Router",
        description="Attach it to this router, which is made if it is not there.",
    )
    external_network: ResourceName | None = Field(
        default=None,
        title="Router's gateway",
        description="The external network in which that router gets its gateway.",
    )
    create_external: ExternalNetworkForm | None = Field(
        default=None,
        title="External network to create",
        description="Make this external network too, and that router's gateway in it (admins "
        "only).",
    )
    gateway: Gateway | None = Field(
        default=None,
        title="Gateway",
        description="The subnet's own gateway; empty: its first address.",
    )
    dns: tuple[Address, ...] = Field(
        default=(), max_length=6, title="DNS servers", description="What DHCP tells the guests."
    )
    pool: Pools = Field(
        default=(),
        title="Pools",
        description="`FIRST-LAST`: what is given to guests; empty: all addresses.",
    )
    host_routes: tuple[RouteForm, ...] = Field(
        default=(),
        max_length=20,
        title="Host routes",
        description="What the guests are told besides the default route, by DHCP or, without "
        "it, by their config drive.",
    )
    dhcp: bool = Field(
        default=True, title="DHCP", description="Whether guests get their addresses by DHCP."
    )
    type: Literal["flat", "local", "vlan", "vxlan", "gre"] = Field(
        default="vxlan",
        title="Type",
        description="`vxlan`, `gre`: a tunnel between hosts. `vlan`: tagged, on an interface of "
        "the host. `local`: within this host. `flat`: for external networks, and for a bridge "
        "that is there already.",
    )
    segment: int | None = Field(
        default=None,
        title="Segment",
        description="The VLAN id, the VXLAN's number or the GRE key; empty: a free one.",
    )
    physical_interface: str | None = Field(
        default=None,
        pattern=_BRIDGE,
        title="Physical interface",
        description="For `vlan`: the interface of the host that carries it.",
    )
    physical_bridge: str | None = Field(
        default=None,
        pattern=_BRIDGE,
        title="Physical bridge",
        description="For `flat`: a bridge that is there already.",
    )
    external: bool = Field(
        default=False,
        title="External",
        description="A network outside, for routers' gateways (admins only).",
    )
    outside: Literal["closed", "uplink", "bridge"] = Field(
        default="closed",
        title="Outside",
        description="What an external network leads to: nothing, this host's uplink, or the "
        "physical bridge.",
    )
    port_security: bool = Field(
        default=True,
        title="Port security",
        description="Anti-spoofing and security groups at its ports (only admins turn it off).",
    )
    credentials: CredentialsName = "default"


class RouterRequest(Form):
    """The change to a router that is wanted."""

    action: Literal[
        "create",
        "add-interface",
        "remove-interface",
        "set-gateway",
        "clear-gateway",
        "set-routes",
        "delete",
    ] = Field(title="Action")
    name: ResourceName = Field(title="Router", description="The router's name.")
    network: ResourceName | None = Field(
        default=None,
        title="Network",
        description="`add-interface` attaches it, `remove-interface` detaches it; "
        "`set-gateway`: the external one.",
    )
    snat: bool | None = Field(
        default=None,
        title="SNAT",
        description="`set-gateway`: whether what goes out gets the gateway's address; empty: as "
        "it is, at first on.",
    )
    routes: tuple[RouteForm, ...] | None = Field(
        default=None,
        max_length=30,
        title="Routes",
        description="`set-routes`: all static routes that it is to have.",
    )
    credentials: CredentialsName = "default"


class FloatingIpRequest(Form):
    """The change to a floating IP that is wanted."""

    action: Literal["create", "attach", "detach", "delete"] = Field(title="Action")
    name: str | None = Field(
        default=None,
        max_length=63,
        title="Floating IP",
        description="Its address, or its id; `create`: the address that is wanted, empty: any.",
    )
    network: ResourceName | None = Field(
        default=None, title="Network", description="`create`: the external network."
    )
    vm: str | None = Field(
        default=None,
        max_length=63,
        title="VM",
        description="`attach`: the VM (name or id) that it is to lead to.",
    )
    port: UUID | None = Field(
        default=None, title="Port", description="`attach`: the VM's port, where it has several."
    )
    fixed_ip: Address | None = Field(
        default=None,
        title="Fixed address",
        description="`attach`: the port's address, where it has several.",
    )
    id: UUID | None = Field(
        default=None,
        title="New id",
        description="`create`: the id that it is to have; the same again makes no other one.",
    )
    credentials: CredentialsName = "default"


class SecurityGroupRequest(Form):
    """The change to a security group that is wanted."""

    action: Literal["create", "add-rule", "remove-rule", "delete"] = Field(title="Action")
    name: ResourceName = Field(title="Security group", description="Its name, or its id.")
    rule: UUID | None = Field(
        default=None, title="Rule", description="`remove-rule`: the rule's id."
    )
    direction: Literal["ingress", "egress"] = Field(
        default="ingress", title="Direction", description="Into the guest, or out of it."
    )
    protocol: Protocol | None = Field(default=None, title="Protocol", description="Empty: all.")
    port_min: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        title="First port",
        description="Of `tcp` and `udp`; empty: all ports.",
    )
    port_max: int | None = Field(
        default=None, ge=1, le=65535, title="Last port", description="Empty: the first one."
    )
    icmp_type: int | None = Field(
        default=None, ge=0, le=255, title="ICMP type", description="Empty: all types."
    )
    icmp_code: int | None = Field(
        default=None, ge=0, le=255, title="ICMP code", description="Empty: all codes of the type."
    )
    remote_cidr: Cidr | None = Field(
        default=None, title="Remote network", description="The other end; empty: anyone."
    )
    remote_group: ResourceName | None = Field(
        default=None,
        title="Remote group",
        description="The other end is any member of this group (name or id).",
    )
    credentials: CredentialsName = "default"


class PortRequest(Form):
    """The change to a VM's port that is wanted."""

    action: Literal["attach", "detach", "set"] = Field(title="Action")
    name: str = Field(title="VM", max_length=63, description="The VM's name, or its id.")
    network: ResourceName | None = Field(
        default=None, title="Network", description="`attach`: the network that it gets a NIC in."
    )
    port: str | None = Field(
        default=None,
        max_length=63,
        title="Port",
        description="`detach`, `set`: the port's id, its address or its MAC address.",
    )
    fixed_ip: Address | None = Field(
        default=None, title="Address", description="`attach`: the wanted one; empty: any."
    )
    security_groups: tuple[ResourceName, ...] | None = Field(
        default=None,
        max_length=20,
        title="Security groups",
        description="`attach`, `set`: all the port is to be in; empty: `default`, or as it is.",
    )
    port_security: bool | None = Field(
        default=None,
        title="Port security",
        description="`set`: anti-spoofing and security groups on or off (admins only).",
    )
    id: UUID | None = Field(
        default=None,
        title="New id",
        description="`attach`: the id of the new port; the same again makes no other one.",
    )
    credentials: CredentialsName = "default"

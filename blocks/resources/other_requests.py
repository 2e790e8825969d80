"""What callers ask for besides a new virtual machine: the parameters of the other flows."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Literal
from uuid import UUID

from pydantic import Field

from blocks.resources.base import ResourceName
from blocks.resources.form import CredentialsName, Form


class VmReference(Form):
    """The virtual machine that it is about."""

    name: str = Field(
        title="Name", max_length=63, description="The VM's name, or its id (`fifty vm list`)."
    )
    credentials: CredentialsName = "default"


class NamedRequest(Form):
    """What it is about."""

    name: ResourceName = Field(title="Name", description="Its name, or its id.")
    credentials: CredentialsName = "default"


class RouterRequest(Form):
    """The change to a router that is wanted."""

    action: Literal["create", "add-interface", "set-gateway", "clear-gateway", "delete"] = Field(
        title="Action"
    )
    name: ResourceName = Field(title="Router", description="The router's name.")
    network: ResourceName | None = Field(
        default=None,
        title="Network",
        description="`add-interface` attaches it; `set-gateway`: the external one.",
    )
    credentials: CredentialsName = "default"


class BuildReference(Form):
    """The build that stopped."""

    id: UUID = Field(
        title="Id", description="The build's id, which is that of the thing it builds."
    )
    name: str = Field(
        default="", max_length=63, title="Name", description="For the run's name only."
    )


class ReconcileRequest(Form):
    """How stopped builds are brought to an end."""

    dispatch: bool = Field(
        default=False,
        title="A run for each",
        description="On: a run of `finish-build` for each, side by side. Off: this run does it, "
        "one after the other.",
    )


class NetworkRequest(Form):
    """The network that is wanted."""

    name: ResourceName = Field(
        title="Name", description="Letters, digits, dot, underscore and hyphen, 63 at most."
    )
    cidr: str = Field(
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
    gateway: IPv4Address | None = Field(
        default=None,
        title="Gateway",
        description="The subnet's own gateway; empty: its first address.",
    )
    dns: tuple[IPv4Address, ...] = Field(
        default=(), max_length=6, title="DNS servers", description="What DHCP tells the guests."
    )
    pool: str | None = Field(
        default=None,
        title="Pool",
        description="`FIRST-LAST`: what is given to guests; empty: all addresses.",
    )
    dhcp: bool = Field(
        default=True, title="DHCP", description="Whether guests get their addresses by DHCP."
    )
    type: Literal["flat", "local", "vxlan"] = Field(
        default="vxlan",
        title="Type",
        description="`vxlan`: a tunnel between hosts. `local`: within this host. `flat`: for "
        "external networks, and for a bridge that is there already.",
    )
    segment: int | None = Field(
        default=None,
        ge=1,
        le=2**24 - 1,
        title="Segment",
        description="The VXLAN's number (VNI); empty: a free one.",
    )
    physical_bridge: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9._-]{1,15}$",
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
    credentials: CredentialsName = "default"


class ImageRequest(Form):
    """The image that is wanted."""

    recipe: ResourceName = Field(
        title="Recipe",
        description="How it is built: `micro` (boots in seconds) or `debian-12` (with cloud-init).",
    )
    name: ResourceName | None = Field(
        default=None, title="Name", description="What it is called; empty: as its recipe."
    )
    rebuild: bool = Field(
        default=False,
        title="Rebuild",
        description="Also if it is there already: the new one takes its place.",
    )
    credentials: CredentialsName = "default"

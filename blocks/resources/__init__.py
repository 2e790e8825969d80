"""What Fifty Steps works on, as pydantic models: validated at the border, trusted inside."""

from blocks.resources.compute import (
    Clocks,
    Flavor,
    FlavorLimits,
    Host,
    Instance,
    InstanceStatus,
    TaskState,
    Volume,
)
from blocks.resources.image import Image, ImageFormat
from blocks.resources.network import (
    FirewallRule,
    FixedIp,
    Network,
    NetworkType,
    Pool,
    Port,
    PortBinding,
    PortKind,
    Router,
    RouterLeg,
    SecurityGroup,
    SecurityGroupRule,
    Subnet,
)
from blocks.resources.request import ImageRequest, InjectedFile, NetworkRequest, VmRequest

__all__ = [
    "Clocks",
    "FirewallRule",
    "FixedIp",
    "Flavor",
    "FlavorLimits",
    "Host",
    "Image",
    "ImageFormat",
    "ImageRequest",
    "InjectedFile",
    "Instance",
    "InstanceStatus",
    "Network",
    "NetworkRequest",
    "NetworkType",
    "Pool",
    "Port",
    "PortBinding",
    "PortKind",
    "Router",
    "RouterLeg",
    "SecurityGroup",
    "SecurityGroupRule",
    "Subnet",
    "TaskState",
    "VmRequest",
    "Volume",
]

"""Instances, flavors, volumes and hosts."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from ipaddress import IPv4Address
from typing import Any

from pydantic import Field

from blocks.resources.base import HostName, Resource, ResourceName


class InstanceStatus(StrEnum):
    """What an instance is, as an operator sees it (Nova's `vm_state`, shortened)."""

    BUILD = "BUILD"
    ACTIVE = "ACTIVE"
    SHUTOFF = "SHUTOFF"
    ERROR = "ERROR"
    NEEDS_ATTENTION = "NEEDS_ATTENTION"
    DELETING = "DELETING"
    DELETED = "DELETED"


class TaskState(StrEnum):
    """What is being done to an instance right now (Nova's `task_state`)."""

    SCHEDULING = "scheduling"
    NETWORKING = "networking"
    BLOCK_DEVICE_MAPPING = "block_device_mapping"
    SPAWNING = "spawning"
    BOOTING = "booting"
    POWERING_ON = "powering_on"
    UNDOING = "undoing"
    DELETING = "deleting"


class FlavorLimits(Resource):
    """What a guest may use at most; nothing set means no limit (Nova's `quota:` specs).

    Attributes:
        cpu_shares: Weight against other guests (cgroup v1 scale, 1024 is one share).
        cpu_percent: Of one processor, for each vcpu.
        disk_iops: Operations a second, for each disk.
        disk_mib_s: MiB a second, for each disk.
        net_kib_s: KiB a second, for each direction of each port.
    """

    cpu_shares: int | None = Field(default=None, ge=2, le=262144)
    cpu_percent: int | None = Field(default=None, ge=1, le=100)
    disk_iops: int | None = Field(default=None, ge=1)
    disk_mib_s: int | None = Field(default=None, ge=1)
    net_kib_s: int | None = Field(default=None, ge=1)


class DiskMode(StrEnum):
    """How a root disk begins (Nova's `images_type`: `qcow2`, or `flat`).

    Attributes:
        CHAINED: An overlay on the image's base in the host's cache: made at once, and takes
            only the room of what the guest writes.
        FLAT: A full copy, sparse, that needs no other file.
    """

    CHAINED = "chained"
    FLAT = "flat"


class Flavor(Resource):
    """A size of instance, and what its root disk is made as."""

    name: ResourceName
    vcpus: int = Field(ge=1, le=64)
    ram_mib: int = Field(ge=64, le=1024 * 1024)
    disk_gib: int = Field(ge=1, le=64 * 1024)
    disk_mode: DiskMode = DiskMode.CHAINED
    limits: FlavorLimits = FlavorLimits()


#: The device of a volume that is its VM's, and is not plugged into it.
DETACHED = ""


class Volume(Resource):
    """A data volume of an instance.

    Attributes:
        device: Its device, from `vdb` on, which is the guest's name for it if the guest boots
            with it (one that runs may call it otherwise); empty while it is detached.
        path: The qcow2 file on the instance's host; chosen before it is made.
    """

    id: str
    tenant_id: str
    instance_id: str | None
    size_gib: int
    index: int
    device: str
    path: str | None = None

    @property
    def plugged(self) -> bool:
        """Whether it is, or is to be, in its guest."""
        return self.device != DETACHED


class Clocks(Resource):
    """The three clocks of a build, seconds from its acceptance."""

    running_s: float | None = None
    booted_s: float | None = None
    login_s: float | None = None


class Host(Resource):
    """A host as the scheduler sees it.

    Attributes:
        ram_mib: All of its memory; `vcpus` all of its processors; `disk_gib` the space
            of the file system that holds the instances.
        *_ratio: Overcommit: how often each may be given out (Nova's allocation ratios).
        claimed_*: What instances hold of it.
        failures: Builds that failed here since the last one that did not.
        features: cpu model, machine types, accelerators: what images may ask for.
        underlay_ip: Where its tunnels end; none: it has no tunnels to other hosts.
    """

    name: str
    zone: str = "nova"
    enabled: bool = True
    vcpus: int
    ram_mib: int
    disk_gib: int
    vcpu_ratio: float = 16.0
    ram_ratio: float = 1.5
    disk_ratio: float = 2.0
    claimed_vcpus: int = 0
    claimed_ram_mib: int = 0
    claimed_disk_gib: int = 0
    instances: int = 0
    failures: int = 0
    load: float = 0.0
    heartbeat_at: datetime | None = None
    features: dict[str, Any] = Field(default_factory=dict)
    underlay_ip: IPv4Address | None = None


class Instance(Resource):
    """A virtual machine, from its record (step 10) to its deletion.

    Attributes:
        flavor: The flavor as it was when the instance was made (as Nova embeds it).
        generation: How often it was built; a rollback begins a new one.
        fault: Why it is in ERROR, as `FiftyError.as_dict` gives it, plus `step`.
    """

    id: str
    tenant_id: str
    name: HostName
    status: InstanceStatus
    task_state: TaskState | None = None
    flavor: Flavor
    image_id: str
    image_name: str
    host: str | None = None
    generation: int = 1
    request_id: str
    flow_run_id: str | None = None
    fault: dict[str, Any] | None = None
    clocks: Clocks = Clocks()
    created_at: datetime
    updated_at: datetime
    extra: dict[str, Any] = Field(default_factory=dict)

"""The guest specification: everything about a domain, before it is XML (step 24)."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Literal
from uuid import UUID

from pydantic import Field

from blocks.resources import ImageFormat
from blocks.resources.base import HostName, MacAddress, Resource

#: The config drive's device; volumes begin at vdb and are 16 at most, so they never meet.
CONFIG_DRIVE_DEVICE = "vdz"


class DiskSpec(Resource):
    """A disk of the guest.

    Attributes:
        target: The device name (`vda`, on a SATA bus `sda`); it says the bus.
        secret: Where it is encrypted: the id of libvirt's secret with its passphrase.
        serial: What the guest finds in `/sys/block/DEV/serial`; 20 characters at most.
        alias: The device's id in libvirt and QEMU (`ua-...`).
    """

    path: Path
    format: ImageFormat
    target: str = Field(pattern=r"^[sv]d[a-z]$")
    alias: str = Field(pattern=r"^ua-[A-Za-z0-9_-]+$")
    serial: str | None = Field(default=None, max_length=20)
    readonly: bool = False
    secret: UUID | None = None

    @property
    def bus(self) -> str:
        """The bus that it is on."""
        return "sata" if self.target.startswith("s") else "virtio"


class InterfaceSpec(Resource):
    """A network interface of the guest, on a tap that is there already (step 36).

    Attributes:
        model: The device; `e1000e` for guests without virtio's drivers.
    """

    tap: str = Field(max_length=15)
    mac: MacAddress
    mtu: int = Field(ge=68, le=65535)
    alias: str = Field(pattern=r"^ua-[A-Za-z0-9_-]+$")
    model: Literal["virtio", "e1000e"] = "virtio"


class CpuSpec(Resource):
    """The guest's processor: libvirt's mode, and the model where the mode is `custom`."""

    mode: Literal["custom", "host-model", "host-passthrough", "maximum"]
    model: str | None = None


class GuestSpec(Resource):
    """A guest as the hypervisor takes it (Nova's LibvirtConfigGuest).

    Attributes:
        created_at: When the instance was recorded; part of the domain's mark.
        accelerator: `kvm`, or `tcg` (QEMU's own emulation).
        disks: The root disk first.
        rng: Where virtio-rng gets its bytes: QEMU itself, or /dev/urandom.
        panic_device: Whether a panic of the guest's kernel becomes the state `crashed`.
        spare_ports: Free PCIe root ports, each for one device plugged in later.
        system: What the guest's machine is made for; see `windows`.
        firmware: SeaBIOS, or UEFI by the firmware that libvirt finds.
        tpm: Whether it has a TPM 2.0 (swtpm).
        media: ISO files in SATA drives; the guest boots from them where its disk does not boot.
        ends_at_reboot: Its first reboot is its end, as an installer's is that is through.
    """

    instance_id: str
    tenant_id: str
    site: str
    name: HostName
    domain: str
    generation: int
    created_at: datetime
    accelerator: Literal["kvm", "tcg"]
    emulator: Path
    machine: str
    cpu: CpuSpec
    vcpus: int = Field(ge=1)
    ram_mib: int = Field(ge=1)
    disks: tuple[DiskSpec, ...] = Field(min_length=1)
    interfaces: tuple[InterfaceSpec, ...] = ()
    console_log: Path
    rng: Literal["builtin", "urandom"] = "builtin"
    panic_device: bool = True
    spare_ports: int = Field(default=4, ge=0, le=16)
    system: Literal["linux", "windows"] = "linux"
    firmware: Literal["bios", "uefi"] = "bios"
    tpm: bool = False
    media: tuple[Path, ...] = Field(default=(), max_length=4)
    ends_at_reboot: bool = False

    def with_encrypted_root(self, secret: UUID) -> GuestSpec:
        """The same guest with a root disk that is encrypted.

        Args:
            secret: The id of libvirt's secret with its passphrase.
        """
        root, *others = self.disks
        encrypted = root.model_copy(update={"secret": secret})
        return self.model_copy(update={"disks": (encrypted, *others)})

    def with_root_layer(self, layer: Path) -> GuestSpec:
        """The same guest, whose root disk is another layer.

        Args:
            layer: The file that it writes.
        """
        root, *others = self.disks
        return self.model_copy(update={"disks": (root.model_copy(update={"path": layer}), *others)})


class BackingFile(Resource):
    """A file below a disk: the base image of an overlay."""

    path: Path
    format: ImageFormat
    encrypted: bool = False

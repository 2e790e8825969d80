"""What an image asks of its guests' machine: its system, and Glance's properties `hw_...`.

The names and their words are Glance's and Nova's ("Useful image properties"): `hw_firmware_type`,
`hw_disk_bus`, `hw_vif_model`, `hw_tpm_version`. All others say something to people alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from blocks.errors import Unsupported
from blocks.resources import Image

#: What each property may say; without it the first.
_WORDS: Mapping[str, tuple[str, ...]] = {
    "hw_firmware_type": ("bios", "uefi"),
    "hw_disk_bus": ("virtio", "sata"),
    "hw_vif_model": ("virtio", "e1000e"),
    "hw_tpm_version": ("none", "2.0"),
}
WINDOWS = "windows"


@dataclass(frozen=True)
class Wishes:
    """What a guest's machine has to be.

    Attributes:
        system: What it is made for; see `blocks.hypervisor.windows`.
        firmware: What the disk is made for.
        disk_bus: Where all of its disks are.
        vif_model: What all of its interfaces are; `e1000e` without virtio's drivers.
        tpm: Whether it cannot do without a TPM 2.0.
    """

    system: Literal["linux", "windows"] = "linux"
    firmware: Literal["bios", "uefi"] = "bios"
    disk_bus: Literal["virtio", "sata"] = "virtio"
    vif_model: Literal["virtio", "e1000e"] = "virtio"
    tpm: bool = False

    @property
    def properties(self) -> dict[str, str]:
        """The properties by which an image asks for it, those that say nothing new left out."""
        said = {
            "hw_firmware_type": self.firmware,
            "hw_disk_bus": self.disk_bus,
            "hw_vif_model": self.vif_model,
            "hw_tpm_version": "2.0" if self.tpm else "none",
        }
        return {name: word for name, word in said.items() if word != _WORDS[name][0]}


def of_installed(
    system: Literal["linux", "windows"], firmware: Literal["bios", "uefi"], *, virtio: bool
) -> Wishes:
    """What an installer asks for, and what it has installed.

    Args:
        system: Whose installer it is.
        firmware: What it starts by.
        virtio: Whether it has, or is given, virtio's drivers.
    """
    if virtio:
        return Wishes(system=system, firmware=firmware)
    return Wishes(system=system, firmware=firmware, disk_bus="sata", vif_model="e1000e")


def wishes_of(image: Image) -> Wishes:
    """What an image asks for.

    Raises:
        Unsupported: A property says what nobody here knows.
    """
    said: dict[str, Any] = {}
    for name, words in _WORDS.items():
        said[name] = image.properties.get(name, words[0])
        if said[name] not in words:
            raise Unsupported(
                f"{image.reference} asks for {name}={said[name]}, which is none of "
                f"{', '.join(words)}",
                hint=f"`fifty image set {image.reference} --property {name}={words[0]}`",
            )
    return Wishes(
        system="windows" if image.os == WINDOWS else "linux",
        firmware=said["hw_firmware_type"],
        disk_bus=said["hw_disk_bus"],
        vif_model=said["hw_vif_model"],
        tpm=said["hw_tpm_version"] == "2.0",
    )


def lacking(
    wishes: Wishes, firmwares: Collection[str], disk_buses: Collection[str], *, tpm: bool
) -> list[str]:
    """What a host has not got of it, each in words.

    Args:
        wishes: What is asked for.
        firmwares: Kinds of firmware that its libvirt finds (`bios`, `efi`).
        disk_buses: Buses that its QEMU has.
        tpm: Whether a guest can have a TPM 2.0 there.
    """
    lacks = []
    if wishes.firmware == "uefi" and "efi" not in firmwares:
        lacks.append("UEFI firmware (ovmf)")
    if wishes.disk_bus not in disk_buses:
        lacks.append(f"{'SATA' if wishes.disk_bus == 'sata' else wishes.disk_bus} drives")
    if wishes.tpm and not tpm:
        lacks.append("a TPM (swtpm)")
    return lacks

"""Which firmware starts a disk: what lies on it, and what the image's property asks for.

A VM has a BIOS unless its image says `hw_firmware_type=uefi`. Firmware with UEFI keeps its list
of boot loaders in memory of its own (NVRAM), which is no part of an image: in a new VM it finds
nothing but the loader that removable media have (UEFI, 3.5.1.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from blocks.commands import Confinement, Limits, run
from blocks.errors import HostFault, Transient
from blocks.images.check.report import Notes
from blocks.images.file_systems import Kind
from blocks.images.partitions import GPT_BIOS_BOOT, GPT_EFI, MBR_EFI, DiskMap, Table, read_map

LOADER = "EFI/BOOT/BOOTX64.EFI"
PROPERTY = "hw_firmware_type"
#: It is copied no further: what a program for UEFI begins with (PE) is enough.
_LIMITS = Limits(memory_bytes=256 * 1024**2, cpu_s=2, file_bytes=64 * 1024)
_PROGRAM = b"MZ"
#: More than any honest disk has: each may take its time.
_MOST_FATS = 8


@dataclass(frozen=True)
class Firmware:
    """What firmware will start an image's VMs, and what that firmware finds.

    Attributes:
        asked: What the image's property says.
        image: What the image is called in a command.
        loaders: Whether the loader is there, by the number of each partition with a FAT; None
            where that cannot be told.
    """

    asked: str = "bios"
    image: str = "NAME"
    loaders: Mapping[int, bool | None] = field(default_factory=dict)

    def command(self, word: str) -> str:
        """What has its VMs get another firmware."""
        return f"`fifty image set {self.image} --property {PROPERTY}={word}`"


def find_loaders(raw: Path, scratch: Path) -> dict[int, bool | None]:
    """Look for the loader on each FAT of a disk, by mtype(1), confined.

    Args:
        raw: The disk, or a view of it; one that is not trusted.
        scratch: A directory of the caller's.
    """
    fats = [
        one
        for one in read_map(raw).partitions
        if one.holds is not None and one.holds.kind is Kind.FAT
    ]
    return {
        one.number: _has_loader(raw, one.offset, scratch / "loader") for one in fats[:_MOST_FATS]
    }


def _has_loader(raw: Path, offset: int, copy: Path) -> bool | None:
    try:
        done = run(
            *("mtype", "-i", f"{raw.absolute()}@@{offset}", f"::/{LOADER}"),
            limits=Confinement(_LIMITS, reads=(raw.absolute(),)),
            ok_codes=range(-64, 256),
            output=copy,
        )
    except (HostFault, Transient):
        return None
    with copy.open("rb") as file:
        if file.read(len(_PROGRAM)) == _PROGRAM:
            return True
    return False if done.returncode == 0 or "not found" in done.stderr else None


def look_at_firmware(disk: DiskMap, firmware: Firmware, notes: Notes) -> None:
    """Whether the firmware that its VMs get finds what it starts."""
    types = {one.type for one in disk.partitions}
    efi = bool({GPT_EFI, MBR_EFI} & types)
    if disk.boot_code:
        notes.saw("the first sector holds boot code")
    if efi:
        notes.saw("there is an EFI system partition")
    if firmware.asked == "uefi":
        _by_uefi(disk, firmware, notes)
    elif firmware.asked != "bios":
        notes.fail(
            f"{PROPERTY}={firmware.asked} is neither bios nor uefi", firmware.command("bios")
        )
    elif not disk.boot_code and efi:
        notes.fail("only UEFI starts it, and its VMs have a BIOS", firmware.command("uefi"))
        _by_uefi(disk, firmware, notes)
    elif not disk.boot_code:
        notes.fail("neither boot code nor an EFI system partition", "install a boot loader")
    else:
        _by_bios(disk, firmware, notes, efi=efi, bios=GPT_BIOS_BOOT in types)


def _by_bios(disk: DiskMap, firmware: Firmware, notes: Notes, *, efi: bool, bios: bool) -> None:
    if any(one.bootable for one in disk.partitions):
        return
    if disk.table is Table.GPT and not bios:
        hint = f"if only UEFI starts it: {firmware.command('uefi')}" if efi else ""
        notes.warn("GPT without BIOS boot partition or legacy boot flag", hint)
    elif disk.table is Table.MBR:
        notes.warn("no partition is active: some boot loaders start none", "sfdisk --activate")


def _by_uefi(disk: DiskMap, firmware: Firmware, notes: Notes) -> None:
    there = [number for number, found in firmware.loaders.items() if found]
    if there:
        notes.saw(f"partition {there[0]} holds {LOADER}")
    elif not firmware.loaders:
        hint = firmware.command("bios") if disk.boot_code else "install a boot loader"
        notes.fail(f"no partition has a FAT with {LOADER}", hint)
    elif None in firmware.loaders.values():
        notes.unknown(
            f"whether {LOADER} is there cannot be told",
            "install mtools, or mend the FAT (fsck.vfat)",
        )
    else:
        notes.fail(
            f"{LOADER} is not there: a new VM's UEFI looks for no other",
            "install the boot loader as on a removable disk (grub-install --removable)",
        )

"""Whether a disk has what firmware looks for before it boots from it."""

from __future__ import annotations

from pathlib import Path

from blocks.commands import run
from blocks.images.qemu_img import INFO_LIMITS


def has_boot_sector(disk: Path) -> bool:
    """Whether the first sector of a disk is signed: 55 AA at its end.

    So is a master boot record, the protective one before a GPT (UEFI, 5.2.3), and the first
    sector of a file system that boots; not so a disk that nobody has written to.

    Args:
        disk: A qcow2 of ours, which has no QEMU.

    Raises:
        HostFault: It cannot be read.
    """
    read = ("-r", "-f", "qcow2", "-c", "read -v 510 2")
    return "000001fe:  55 aa" in run("qemu-io", *read, disk, limits=INFO_LIMITS).stdout

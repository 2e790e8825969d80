"""Taking the disk of a machine that is off into the catalogue's directory."""

from __future__ import annotations

from pathlib import Path

from blocks.images import qemu_img
from blocks.images.progress import Percents
from blocks.images.stored import StoredImage, store
from blocks.resources.image import ImageFormat


def capture(disk: Path, target: Path, tell: Percents) -> StoredImage:
    """Copy a disk, compressed and without what is zero or below it, and look at the copy.

    Args:
        disk: A qcow2 of ours that no QEMU is using; a guest has written its content.
        target: The file to make.
        tell: Told now and then how far it is.

    Raises:
        Conflict: A QEMU has the disk open.
        UnsafeImage: The copy is not what it should be.
        HostFault: There is no room for it, or qemu-img failed.
    """
    qemu_img.require_unused(disk, ImageFormat.QCOW2)
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    return store(disk, ImageFormat.QCOW2, target, f"Captured the disk {disk}", tell)

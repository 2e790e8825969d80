"""Taking the disk of a machine that is off into the catalogue's directory."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from blocks import changes
from blocks.images import qemu_img
from blocks.images.files import replacing
from blocks.images.inspection import inspect
from blocks.images.progress import Percents
from blocks.resources.base import Sha256
from blocks.resources.image import ImageFormat


class CapturedImage(BaseModel):
    """A disk that was captured: what the catalogue has to know of it.

    Attributes:
        path: Its file.
        size_bytes: The file's length; `virtual_size_bytes` what the guest sees.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    format: ImageFormat
    sha256: Sha256
    size_bytes: int
    virtual_size_bytes: int


def capture(disk: Path, target: Path, tell: Percents) -> CapturedImage:
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
    with replacing(target, mode=0o644) as part:
        words = qemu_img.convert(disk, "qcow2", part, "qcow2", compressed=True, tell=tell)
        qemu_img.check(part, "qcow2")
        seen = inspect(part, ImageFormat.QCOW2)
        with part.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    changes.record(f"Captured the disk {disk}", [*words[:-1], str(target)])
    return CapturedImage(
        path=target,
        format=ImageFormat.QCOW2,
        sha256=digest,
        size_bytes=seen.size_bytes,
        virtual_size_bytes=seen.virtual_size_bytes,
    )

"""A guest's root disk: an overlay on its base, or a full copy; and its size.

Each is there whole or not at all, and made once: a second time it is looked at only.
"""

from __future__ import annotations

import os
from pathlib import Path

from blocks import changes
from blocks.errors import Conflict, InvalidRequest
from blocks.images import encryption, qemu_img
from blocks.images.files import replacing
from blocks.images.progress import Percents
from blocks.images.qcow2_header import read_header
from blocks.resources.image import ImageFormat

#: A qcow2's own tables: 8 bytes a cluster of 64 KiB and less, besides headers.
_TABLES_PART = 1024
_TABLES_REST = 64 * 1024 * 1024


def create(base: Path, base_format: ImageFormat, path: Path) -> None:
    """Create a qcow2 disk on a base.

    Raises:
        Conflict: Another disk is there already.
    """
    if not _is_there(path, base, encrypted=False):
        with replacing(path, mode=0o600) as part:
            words = qemu_img.create_overlay(base, base_format, part)
        changes.record(f"Created on its base the disk {path}", [*words[:-1], str(path)])


def copy(base: Path, base_format: ImageFormat, path: Path, tell: Percents) -> None:
    """Create a qcow2 disk that is a full copy of a base, and needs no other file.

    Raises:
        Conflict: Another disk is there already.
        HostFault: There is no room for it.
    """
    if _is_there(path, None, encrypted=False):
        return
    size = qemu_img.info_of_untrusted(base, base_format).virtual_size_bytes
    outcome = qemu_img.Outcome(
        format=ImageFormat.QCOW2, compressed=False, limit_bytes=largest_file(size)
    )
    with replacing(path, mode=0o600) as part:
        words = qemu_img.convert_untrusted(base, base_format, part, outcome, tell)
    changes.record(f"Copied the base into the disk {path}", [*words[:-1], str(path)])


def create_encrypted(base: Path, path: Path, passphrase: str, size_bytes: int) -> None:
    """Create an encrypted qcow2 disk on an encrypted base, at its size from the start.

    Raises:
        Conflict: Another disk is there already.
    """
    if not _is_there(path, base, encrypted=True):
        with replacing(path, mode=0o600) as part:
            words = encryption.create_overlay(base, part, passphrase, size_bytes)
        what = "Created on its base the encrypted disk"
        changes.record(f"{what} {path}", [*words[:-2], str(path)])


def copy_encrypted(
    base: Path, path: Path, passphrase: str, size_bytes: int, tell: Percents
) -> None:
    """Create an encrypted qcow2 disk that is a full copy of an encrypted base, at its size.

    Raises:
        Conflict: Another disk is there already.
        HostFault: There is no room for it.
    """
    if not _is_there(path, None, encrypted=True):
        with replacing(path, mode=0o600) as part:
            limit = largest_file(size_bytes)
            words = encryption.copy(base, part, passphrase, size_bytes, limit, tell)
        what = "Copied the base into the encrypted disk"
        changes.record(f"{what} {path}", [*words[:-1], str(path)])


def resize(path: Path, size_bytes: int) -> None:
    """Make a disk that large; never smaller.

    Raises:
        InvalidRequest: It is larger already.
        UnsafeImage: Its header is cut off.
    """
    with path.open("rb") as file:
        now = read_header(file, os.fstat(file.fileno()).st_size).size
    if now > size_bytes:
        raise InvalidRequest(
            f"the disk has {now} bytes, more than the {size_bytes} it should have",
            hint="choose a flavor with a larger disk",
        )
    if now < size_bytes:
        words = qemu_img.resize(path, ImageFormat.QCOW2, size_bytes)
        changes.record(f"Resized the disk {path} from {now} to {size_bytes} bytes", words)


def _is_there(path: Path, base: Path | None, *, encrypted: bool) -> bool:
    """Whether the disk is there already, as it should be.

    Raises:
        Conflict: It is another one.
    """
    if not path.exists():
        return False
    seen = qemu_img.info(path, ImageFormat.QCOW2)
    if (seen.backing_file, seen.encrypted) != (str(base) if base else None, encrypted):
        raise Conflict(
            f"the disk {path} is there, and is another one: on {seen.backing_file or 'no base'}",
            hint="roll back the build first",
        )
    return True


def largest_file(size_bytes: int) -> int:
    """The most bytes that a qcow2 of a virtual size may have."""
    return size_bytes + size_bytes // _TABLES_PART + _TABLES_REST

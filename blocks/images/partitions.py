"""Where the root file system of a disk begins: the partition table, and ext4's superblock."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from blocks.errors import GuestFault, Unsupported

_SECTOR = 512
_TABLE = 446
_ENTRY = struct.Struct("<B3xB3xII")
_LINUX = 0x83
_PROTECTIVE = 0xEE
_SUPERBLOCK = 1024
_EXT_MAGIC = 0xEF53
_STATE_CLEAN = 1
_NEEDS_RECOVERY = 0x4


@dataclass(frozen=True)
class FileSystem:
    """An ext file system on a disk.

    Attributes:
        offset: Where it begins, in bytes.
        label: Its volume label.
        clean: It was unmounted, and its journal holds nothing that is still to be done.
    """

    offset: int
    label: str
    clean: bool


def find_root(disk: Path) -> FileSystem:
    """Find the root file system: on the whole disk, or the first Linux partition of an MBR.

    Of several ext file systems the one labelled `root` is taken, else the first.

    Args:
        disk: A raw disk, or a view of one.

    Raises:
        Unsupported: It has no such file system (another partition table, another type).
    """
    with disk.open("rb") as file:
        found = [one for offset in _candidates(file) if (one := _file_system(file, offset))]
    if not found:
        raise Unsupported(
            "the image has no ext4 file system in an MBR partition",
            hint="give the files by user data instead",
        )
    return next((one for one in found if one.label == "root"), found[0])


def require_clean(root: FileSystem) -> None:
    """Make sure that a file system can be changed without its kernel.

    Raises:
        GuestFault: Its journal has to be replayed first.
    """
    if not root.clean:
        raise GuestFault(
            "the root file system was not unmounted: nothing can be injected",
            hint="boot and shut down the guest once, or give the files by user data",
        )


def _candidates(file: BinaryIO) -> list[int]:
    """Offsets of what may be a file system."""
    sector = _at(file, 0, _SECTOR)
    if sector[510:512] != b"\x55\xaa":
        return [0]
    entries = [_ENTRY.unpack_from(sector, _TABLE + 16 * number) for number in range(4)]
    if any(kind == _PROTECTIVE for _boot, kind, _start, _count in entries):
        raise Unsupported(
            "the image has a GPT partition table; injection knows MBR",
            hint="give the files by user data instead",
        )
    starts = [start for _boot, kind, start, count in entries if kind == _LINUX and start and count]
    return [start * _SECTOR for start in starts] or [0]


def _file_system(file: BinaryIO, offset: int) -> FileSystem | None:
    block = _at(file, offset + _SUPERBLOCK, 264)
    if len(block) < 264 or struct.unpack_from("<H", block, 56)[0] != _EXT_MAGIC:
        return None
    (state,) = struct.unpack_from("<H", block, 58)
    (incompatible,) = struct.unpack_from("<I", block, 96)
    label = block[120:136].split(b"\x00")[0].decode("utf-8", "replace")
    clean = bool(state & _STATE_CLEAN) and not incompatible & _NEEDS_RECOVERY
    return FileSystem(offset=offset, label=label, clean=clean)


def _at(file: BinaryIO, offset: int, length: int) -> bytes:
    file.seek(offset)
    return file.read(length)

"""What lies on a partition: file systems and the like, by their superblocks, read in Python.

Nothing is mounted and nothing is believed beyond what a few fixed offsets say (the layouts are
those of `blkid`'s superblock probes); an access method decides what it can do with the kind.
"""

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass
from enum import StrEnum
from typing import BinaryIO

_EXT_MAGIC = 0xEF53
_EXT_CLEAN = 1
_EXT_NEEDS_RECOVERY = 0x4
_EXT_HAS_JOURNAL = 0x4
#: extents, 64bit, flex_bg: features that make it ext4.
_EXT4_FEATURES = 0x40 | 0x80 | 0x200
_BTRFS_AT = 64 * 1024
_SWAP_MAGICS = (b"SWAPSPACE2", b"SWAP-SPACE")


class Kind(StrEnum):
    """What can lie on a partition."""

    EXT2 = "ext2"
    EXT3 = "ext3"
    EXT4 = "ext4"
    XFS = "xfs"
    BTRFS = "btrfs"
    FAT = "vfat"
    NTFS = "ntfs"
    SWAP = "swap"
    LUKS = "luks"
    LVM = "lvm"


EXT = frozenset({Kind.EXT2, Kind.EXT3, Kind.EXT4})
#: What a Linux guest's root can be.
ROOT_KINDS = EXT | {Kind.XFS, Kind.BTRFS}


@dataclass(frozen=True)
class FileSystem:
    """What was found on a partition.

    Attributes:
        kind: What it is.
        offset: Where it begins on the disk, in bytes.
        size: The bytes that it takes, as its superblock says; 0 where that is not read.
        label: Its volume label.
        uuid: Its identity as blkid writes it, lower case; empty where it has none.
        clean: It was unmounted: its journal holds nothing that is still to be done.
    """

    kind: Kind
    offset: int
    size: int = 0
    label: str = ""
    uuid: str = ""
    clean: bool = True


def probe(file: BinaryIO, offset: int) -> FileSystem | None:
    """What begins at an offset of a disk; None for nothing that is known here."""
    for look in (_luks, _lvm, _xfs, _ext, _btrfs, _swap, _ntfs, _fat):
        found = look(file, offset)
        if found is not None:
            return found
    return None


def read_at(file: BinaryIO, offset: int, length: int) -> bytes:
    """Bytes at an offset, filled up with zeros beyond the end."""
    file.seek(offset)
    return file.read(length).ljust(length, b"\x00")


def _text(content: bytes) -> str:
    return content.split(b"\x00")[0].decode("utf-8", "replace").rstrip(" ")


def _uuid(content: bytes) -> str:
    return str(uuid.UUID(bytes=content)) if any(content) else ""


def _ext(file: BinaryIO, offset: int) -> FileSystem | None:
    block = read_at(file, offset + 1024, 1024)
    if struct.unpack_from("<H", block, 56)[0] != _EXT_MAGIC:
        return None
    (state,) = struct.unpack_from("<H", block, 58)
    compatible, incompatible = struct.unpack_from("<II", block, 92)
    low, log_size = struct.unpack_from("<I", block, 4)[0], struct.unpack_from("<I", block, 24)[0]
    high = struct.unpack_from("<I", block, 0x150)[0] if incompatible & 0x80 else 0
    kind = Kind.EXT3 if compatible & _EXT_HAS_JOURNAL else Kind.EXT2
    return FileSystem(
        kind=Kind.EXT4 if incompatible & _EXT4_FEATURES else kind,
        offset=offset,
        size=((high << 32) | low) << (10 + min(log_size, 6)),
        label=_text(block[120:136]),
        uuid=_uuid(block[104:120]),
        clean=bool(state & _EXT_CLEAN) and not incompatible & _EXT_NEEDS_RECOVERY,
    )


def _xfs(file: BinaryIO, offset: int) -> FileSystem | None:
    block = read_at(file, offset, 512)
    if not block.startswith(b"XFSB"):
        return None
    block_size, blocks = struct.unpack_from(">IQ", block, 4)
    return FileSystem(
        Kind.XFS, offset, block_size * blocks, _text(block[108:120]), _uuid(block[32:48])
    )


def _btrfs(file: BinaryIO, offset: int) -> FileSystem | None:
    block = read_at(file, offset + _BTRFS_AT, 4096)
    if block[64:72] != b"_BHRfS_M":
        return None
    (size,) = struct.unpack_from("<Q", block, 112)
    return FileSystem(Kind.BTRFS, offset, size, _text(block[299:555]), _uuid(block[32:48]))


def _swap(file: BinaryIO, offset: int) -> FileSystem | None:
    page = read_at(file, offset, 4096)
    if page[4086:4096] not in _SWAP_MAGICS:
        return None
    return FileSystem(Kind.SWAP, offset, 0, _text(page[1052:1068]), _uuid(page[1036:1052]))


def _luks(file: BinaryIO, offset: int) -> FileSystem | None:
    block = read_at(file, offset, 592)
    if not block.startswith(b"LUKS\xba\xbe"):
        return None
    return FileSystem(Kind.LUKS, offset, uuid=_text(block[168:208]).lower())


def _lvm(file: BinaryIO, offset: int) -> FileSystem | None:
    label = read_at(file, offset + 512, 32)
    if label[:8] == b"LABELONE" and label[24:32] == b"LVM2 001":
        return FileSystem(Kind.LVM, offset)
    return None


def _ntfs(file: BinaryIO, offset: int) -> FileSystem | None:
    block = read_at(file, offset, 512)
    if block[3:11] != b"NTFS    ":
        return None
    (serial,) = struct.unpack_from("<Q", block, 72)
    return FileSystem(Kind.NTFS, offset, uuid=f"{serial:016x}")


def _fat(file: BinaryIO, offset: int) -> FileSystem | None:
    block = read_at(file, offset, 512)
    if block[510:512] != b"\x55\xaa":
        return None
    for at, magic in ((67, (b"FAT32   ",)), (39, (b"FAT12   ", b"FAT16   ", b"FAT     "))):
        if block[at + 15 : at + 23] in magic:
            (serial,) = struct.unpack_from("<I", block, at)
            label = _text(block[at + 4 : at + 15])
            return FileSystem(
                Kind.FAT,
                offset,
                label="" if label == "NO NAME" else label,
                uuid=f"{serial >> 16:04x}-{serial & 0xFFFF:04x}",
            )
    return None

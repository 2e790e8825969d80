"""VHDX: Hyper-V's format, dynamic or fixed, without a parent and with an empty log.

Fields: Microsoft's MS-VHDX. All integers are little-endian. A log that is not empty would
have to be replayed, which changes the file: such an image was not shut down well.
"""

from __future__ import annotations

import struct
import uuid
from array import array
from dataclasses import dataclass
from typing import BinaryIO

from blocks.images.formats.reader import LARGEST_DISK, Reader

_KIB, _MIB = 1024, 1024 * 1024
_HEADERS = (64 * _KIB, 128 * _KIB)
_HEADER_LENGTH = 4 * _KIB
_REGION_TABLES = (192 * _KIB, 256 * _KIB)
_REGION_TABLE_LENGTH = 64 * _KIB
_MOST_ENTRIES = 2047
_MOST_REGIONS = 16

_BAT = uuid.UUID("2dc27766-f623-4200-9d64-115e9bfd4a08")
_METADATA = uuid.UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e")
_FILE_PARAMETERS = uuid.UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b")
_DISK_SIZE = uuid.UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8")
_SECTOR_SIZE = uuid.UUID("8141bf1d-a96f-4709-ba47-f233a8faab5f")
_PHYSICAL_SECTOR_SIZE = uuid.UUID("cda348c7-445d-4471-9cc9-e9885251c556")
_PAGE_83 = uuid.UUID("beca12ab-b2e6-4523-93ef-c309e000c746")
_PARENT_LOCATOR = uuid.UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c")
_ITEMS = {
    _FILE_PARAMETERS: 8,
    _DISK_SIZE: 8,
    _SECTOR_SIZE: 4,
    _PHYSICAL_SECTOR_SIZE: 4,
    _PAGE_83: 16,
}
_HAS_PARENT = 2
_PRESENT = 6
#: States of a block: not there, undefined, zero, unmapped, (unmapped in QEMU), there.
_STATES = frozenset((0, 1, 2, 3, 5, _PRESENT))


@dataclass(frozen=True)
class _Region:
    """A region of the file, in bytes."""

    offset: int
    length: int


def virtual_size(file: BinaryIO, length: int) -> int:
    """Look whether a VHDX is one that keeps to itself.

    Args:
        file: The image; its magic bytes were compared before.
        length: Its length in bytes.

    Returns:
        What a guest sees, in bytes.

    Raises:
        UnsafeImage: It is not; the message says why.
    """
    image = Reader(file, length, "vhdx")
    _check_header(image)
    regions = _regions(image)
    items = _metadata(image, regions[_METADATA])
    block, flags = struct.unpack("<II", items[_FILE_PARAMETERS])
    (size,) = struct.unpack("<Q", items[_DISK_SIZE])
    (sector,) = struct.unpack("<I", items[_SECTOR_SIZE])
    image.require(not flags & _HAS_PARENT, "has a parent")
    image.require(
        _MIB <= block <= 256 * _MIB and block & (block - 1) == 0, f"has blocks of {block} bytes"
    )
    image.require(sector in (512, 4096), f"has sectors of {sector} bytes")
    image.require(0 < size <= LARGEST_DISK, f"has a virtual size of {size} bytes")
    _check_blocks(image, regions[_BAT], size, block, sector)
    return int(size)


def _check_header(image: Reader) -> None:
    """Of its two headers the newer valid one counts."""
    valid = []
    for offset in _HEADERS:
        raw = image.at(offset, _HEADER_LENGTH)
        if raw.startswith(b"head") and _checksum_is_right(raw):
            (sequence,) = struct.unpack_from("<Q", raw, 8)
            valid.append((sequence, raw))
    image.require(bool(valid), "has no valid header")
    _sequence, raw = max(valid)
    (version,) = struct.unpack_from("<H", raw, 66)
    image.require(version == 1, f"has the version {version}")
    image.require(raw[48:64] == bytes(16), "has a log that was not replayed")


def _regions(image: Reader) -> dict[uuid.UUID, _Region]:
    raw, copy = (image.at(offset, _REGION_TABLE_LENGTH) for offset in _REGION_TABLES)
    image.require(raw == copy, "has two region tables that differ")
    image.require(raw.startswith(b"regi") and _checksum_is_right(raw), "has no valid region table")
    (count,) = struct.unpack_from("<I", raw, 8)
    image.require(count <= _MOST_REGIONS, f"has {count} regions")
    found: dict[uuid.UUID, _Region] = {}
    for number in range(count):
        guid, offset, length, required = struct.unpack_from("<16sQII", raw, 16 + 32 * number)
        kind = uuid.UUID(bytes_le=guid)
        image.require(kind not in found, "has a region twice")
        image.require(kind in (_BAT, _METADATA) or not required & 1, "has an unknown region")
        aligned = offset >= _MIB and offset % _MIB == 0 and length % _MIB == 0
        image.require(aligned and length > 0, "has a crooked region")
        image.require(offset + length <= image.length, "has a region outside of the file")
        for other in found.values():
            apart = offset + length <= other.offset or other.offset + other.length <= offset
            image.require(apart, "has regions that overlap")
        found[kind] = _Region(offset, length)
    image.require(_BAT in found and _METADATA in found, "lacks a region")
    return found


def _metadata(image: Reader, region: _Region) -> dict[uuid.UUID, bytes]:
    """The metadata's items that we know, each of its own length."""
    image.require(image.at(region.offset, 8) == b"metadata", "has no metadata")
    (count,) = image.unpack("<H", region.offset + 10)
    image.require(count <= _MOST_ENTRIES, f"has {count} items of metadata")
    found: dict[uuid.UUID, bytes] = {}
    for number in range(count):
        guid, offset, length, flags, _ = image.unpack("<16sIIII", region.offset + 32 + 32 * number)
        kind = uuid.UUID(bytes_le=guid)
        image.require(kind != _PARENT_LOCATOR, "has a parent")
        if kind not in _ITEMS:
            image.require(not flags & 4, "has unknown metadata that is required")
            continue
        image.require(kind not in found and length == _ITEMS[kind], "has crooked metadata")
        inside = offset >= 64 * _KIB and offset + length <= region.length
        image.require(inside, "has metadata outside of its region")
        found[kind] = image.at(region.offset + offset, length)
    lacks = {_FILE_PARAMETERS, _DISK_SIZE, _SECTOR_SIZE} - set(found)
    image.require(not lacks, "lacks metadata")
    return found


def _check_blocks(image: Reader, table: _Region, size: int, block: int, sector: int) -> None:
    """Every block that is there lies in the file; none is partly a parent's."""
    blocks = -(-size // block)
    per_bitmap = (2**23 * sector) // block
    entries = blocks + (blocks - 1) // per_bitmap
    image.require(entries * 8 <= table.length, "has a block table that is too small")
    highest = 0
    for piece in image.chunks(table.offset, entries * 8):
        places = array("Q", piece)
        image.require({one & 7 for one in places} <= _STATES, "has blocks of an unknown state")
        highest = max(highest, max((one for one in places if one & 7 == _PRESENT), default=0))
    end = (highest >> 20) * _MIB + block if highest else 0
    image.require(end <= image.length, "has blocks outside of the file")


def _checksum_is_right(raw: bytes) -> bool:
    """Whether a structure's CRC-32C (in bytes 4 to 7) is that of the rest of it."""
    expected: int
    (expected,) = struct.unpack_from("<I", raw, 4)
    return _crc32c(raw[:4] + bytes(4) + raw[8:]) == expected


def _crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli, RFC 3720), which the standard library lacks."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC_TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _crc_entry(value: int) -> int:
    for _ in range(8):
        value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    return value


_CRC_TABLE = tuple(_crc_entry(value) for value in range(256))

"""VDI: VirtualBox's format, dynamic or fixed, without a parent (QEMU's block/vdi.c)."""

from __future__ import annotations

import struct
from array import array
from typing import BinaryIO

from blocks.images.formats.reader import LARGEST_DISK, SECTOR, Reader

_FIELDS = struct.Struct("<IIIII256sIIIIIIIQIIII16s16s16s16s")
_FIELDS_AT = 64
_VERSION = 0x00010001
_DYNAMIC, _FIXED = 1, 2
_BLOCK = 1024 * 1024
#: Entries of the block map from here on stand for no block: discarded, or never written.
_NO_BLOCK = 0xFFFFFFFE
_NO_UUID = bytes(16)


def virtual_size(file: BinaryIO, length: int) -> int:
    """Look whether a VDI is one that keeps to itself.

    Args:
        file: The image; its magic bytes were compared before.
        length: Its length in bytes.

    Returns:
        What a guest sees, in bytes.

    Raises:
        UnsafeImage: It is not; the message says why.
    """
    image = Reader(file, length, "vdi")
    (
        _signature, version, _header_size, kind, _flags, _description, map_at, data_at,
        _cylinders, _heads, _sectors, sector, _unused, size, block, block_extra, blocks,
        allocated, _uuid, _last_snapshot, link, parent,
    ) = _FIELDS.unpack(image.at(_FIELDS_AT, _FIELDS.size))  # fmt: skip
    image.require(version == _VERSION, f"has the version {version:#x}")
    image.require(kind in (_DYNAMIC, _FIXED), f"is of the type {kind}: a difference, or unknown")
    image.require(link == parent == _NO_UUID, "has a parent")
    image.require(sector == SECTOR, f"has sectors of {sector} bytes")
    image.require(block == _BLOCK and block_extra == 0, f"has blocks of {block} bytes")
    image.require(map_at % SECTOR == 0 and data_at % SECTOR == 0, "has a crooked map")
    image.require(map_at >= _FIELDS_AT + _FIELDS.size, "has a map within its header")
    image.require(size <= LARGEST_DISK, f"has a virtual size of {size} bytes")
    image.require(0 < size <= blocks * _BLOCK, "has a map that is too small for its disk")
    image.require(blocks == -(-size // _BLOCK), f"has {blocks} blocks")
    image.require(allocated <= blocks, f"has {allocated} blocks of {blocks}")
    image.require(data_at >= map_at + blocks * 4, "has data within its map")
    highest = -1
    for piece in image.chunks(map_at, blocks * 4):
        entries = array("I", piece)
        highest = max(highest, max((one for one in entries if one < _NO_BLOCK), default=-1))
    image.require(highest < allocated, "has blocks that it has not")
    image.require(data_at + (highest + 1) * _BLOCK <= length, "has blocks outside of the file")
    return int(size)

"""VMDK: only what lies in one file, `monolithicSparse` and `streamOptimized`.

A VMDK's descriptor is a text that may name other files, as extents or as a parent, and QEMU
opens them (QEMU's block/vmdk.c; VMware's "Virtual Disk Format 5.0"). Two traps lie in the
header: with a capacity of zero QEMU goes by the descriptor's extents alone, and a grain
directory "at the end" makes a footer count instead of the header.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import BinaryIO

from blocks.images.formats.reader import LARGEST_DISK, SECTOR, Reader

_HEADER = struct.Struct("<4sIIQQQQIQQQB4sH")
_AT_END = 0xFFFFFFFFFFFFFFFF
#: QEMU reads so much of a descriptor, whatever its length.
_LEAST_DESCRIPTOR = 20 * SECTOR
_LONGEST_DESCRIPTOR = 1024 * 1024
#: Grain tables of the largest disk, its grains the smallest that QEMU makes.
_MOST_TABLES = LARGEST_DISK // (512 * 8 * SECTOR)
_TYPES = (b"monolithicsparse", b"streamoptimized")
_NO_PARENT = b"ffffffff"
_EXTENT = re.compile(rb"^\s*(?:rw|rdonly|noaccess)\s+(\d{1,20})\s+(\w+)\s", re.MULTILINE)


@dataclass(frozen=True)
class _Header:
    """A sparse extent's header; sizes and places in sectors, as it has them."""

    version: int
    flags: int
    capacity: int
    grain: int
    descriptor_at: int
    descriptor_length: int
    entries_per_table: int
    directory_at: int
    compression: int


def virtual_size(file: BinaryIO, length: int) -> int:
    """Look whether a VMDK is one that keeps to itself.

    Args:
        file: The image; its magic bytes were compared before.
        length: Its length in bytes.

    Returns:
        What a guest sees, in bytes.

    Raises:
        UnsafeImage: It is not; the message says why.
    """
    image = Reader(file, length, "vmdk")
    header = _header(image, 0)
    _check(image, header)
    _check_descriptor(image, header)
    actual = header
    if header.directory_at == _AT_END:
        actual = _header(image, length - 2 * SECTOR)
        same = {**vars(actual), "directory_at": _AT_END}
        image.require(same == vars(header), "has a footer that contradicts its header")
    _check_directory(image, actual)
    return header.capacity * SECTOR


def _header(image: Reader, offset: int) -> _Header:
    (
        magic, version, flags, capacity, grain, descriptor_at, descriptor_length,
        entries, _spare_directory, directory, _overhead, _unclean, _check_bytes, compression,
    ) = _HEADER.unpack(image.at(offset, _HEADER.size))  # fmt: skip
    image.require(magic == b"KDMV", "has no header where one has to be")
    return _Header(
        version, flags, capacity, grain, descriptor_at, descriptor_length, entries, directory,
        compression,
    )  # fmt: skip


def _check(image: Reader, header: _Header) -> None:
    image.require(header.version in (1, 2, 3), f"has the version {header.version}")
    image.require(header.capacity > 0, "has no capacity of its own, only extents")
    grain = header.grain
    image.require(8 <= grain <= 2048 and grain & (grain - 1) == 0, f"has grains of {grain} sectors")
    entries = header.entries_per_table
    image.require(0 < entries <= 512, f"has {entries} entries in a grain table")
    image.require(header.compression in (0, 1), f"has the compression {header.compression}")
    image.require(header.descriptor_at > 0, "has no descriptor of its own")


def _check_descriptor(image: Reader, header: _Header) -> None:
    """The descriptor names one sparse extent, the file itself, and no parent."""
    start = header.descriptor_at * SECTOR
    size = header.descriptor_length * SECTOR
    image.require(0 < size <= _LONGEST_DESCRIPTOR, f"has a descriptor of {size} bytes")
    text = image.at(start, size)
    seen_by_qemu = image.at(start, min(max(size, _LEAST_DESCRIPTOR), image.length - start))
    image.require(b"parentfilenamehint" not in seen_by_qemu.lower(), "names a parent")
    text = text.partition(b"\0")[0].lower()
    fields = dict(re.findall(rb'^[ \t]*([a-z.]+)[ \t]*=[ \t]*"?([^"\r\n]*)', text, re.MULTILINE))
    kind = fields.get(b"createtype", b"")
    image.require(kind in _TYPES, f"is of the type {kind.decode(errors='replace')[:40]!r}")
    image.require(fields.get(b"parentcid", _NO_PARENT) == _NO_PARENT, "has a parent")
    extents = _EXTENT.findall(text)
    image.require(
        len(extents) == 1 and extents[0][1] == b"sparse",
        "has extents in other files, or more than one",
    )
    image.require(int(extents[0][0]) == header.capacity, "has an extent of another size")


def _check_directory(image: Reader, header: _Header) -> None:
    """The grain directory and the tables that it points to lie in the file."""
    per_table = header.entries_per_table * header.grain
    tables = -(-header.capacity // per_table)
    table_length = header.entries_per_table * 4
    image.require(header.directory_at > 0, "has no grain directory")
    image.require(tables <= _MOST_TABLES, f"has {tables} grain tables")
    for piece in image.chunks(header.directory_at * SECTOR, tables * 4):
        for (at,) in struct.iter_unpack("<I", piece):
            image.require(
                at * SECTOR + table_length <= image.length, "has a grain table outside of the file"
            )

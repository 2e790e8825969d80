"""The partitions of a disk: MBR (with logical ones) and GPT, and what lies on each.

Read in Python with every number checked against the disk: a table that points outside of it,
at itself, or has too many entries is told as a problem, and never followed.
"""

from __future__ import annotations

import itertools
import struct
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

from blocks.images.file_systems import FileSystem, Kind, probe, read_at

_SECTOR = 512
_TABLE = 446
_ENTRY = struct.Struct("<B3xB3xII")
_BOOT_SIGNATURE = b"\x55\xaa"
_PROTECTIVE = 0xEE
_EXTENDED = frozenset({0x05, 0x0F, 0x85})
_MOST_PARTITIONS = 128
_GPT_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_GPT_ENTRY = struct.Struct("<16s16sQQQ72s")
_LARGEST_ENTRY = 4096
#: GPT types (UAPI Discoverable Partitions Specification).
GPT_ROOT = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"
GPT_EFI = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
GPT_BIOS_BOOT = "21686148-6449-6e6f-744e-656564454649"
MBR_EFI = "ef"


class Table(StrEnum):
    """The kinds of partition tables."""

    NONE = "none"
    MBR = "mbr"
    GPT = "gpt"


@dataclass(frozen=True)
class Partition:
    """A partition.

    Attributes:
        number: As in /dev/vda1; 0 for a disk without partitions.
        offset: Where it begins, in bytes; `size` how long it is.
        type: Two hexadecimal digits (MBR), or the type's GUID in lower case (GPT).
        uuid: PARTUUID as blkid writes it, lower case.
        name: PARTLABEL (GPT).
        bootable: The MBR's active flag, or GPT's "legacy BIOS bootable".
        holds: What lies on it.
    """

    number: int
    offset: int
    size: int
    type: str = ""
    uuid: str = ""
    name: str = ""
    bootable: bool = False
    holds: FileSystem | None = None


@dataclass(frozen=True)
class DiskMap:
    """The layout of a disk.

    Attributes:
        table: Its kind of partition table.
        partitions: Those that lie on the disk, in the table's order.
        size: The disk's bytes.
        boot_code: Whether the first sector holds code that a BIOS would start.
        problems: What is wrong with the table, in words.
    """

    table: Table
    partitions: tuple[Partition, ...]
    size: int
    boot_code: bool
    problems: tuple[str, ...] = ()

    @property
    def file_systems(self) -> tuple[FileSystem, ...]:
        """What lies on the partitions."""
        return tuple(one.holds for one in self.partitions if one.holds is not None)


def read_map(disk: Path) -> DiskMap:
    """Read the layout of a disk.

    Args:
        disk: A raw disk, or a view of one.
    """
    with disk.open("rb") as file:
        size = file.seek(0, 2)
        return _map(file, size)


def _map(file: BinaryIO, size: int) -> DiskMap:
    sector = read_at(file, 0, _SECTOR)
    whole = probe(file, 0)
    # These two have the signature of an MBR in their own first sector.
    alike = whole is not None and whole.kind in (Kind.FAT, Kind.NTFS)
    entries = [_ENTRY.unpack_from(sector, _TABLE + 16 * number) for number in range(4)]
    used = [entry for entry in entries if entry[1] and entry[3]]
    signed = sector[510:512] == _BOOT_SIGNATURE
    code = signed and any(sector[:440])
    if not signed or not used or any(entry[0] & 0x7F for entry in entries) or alike:
        alone = (Partition(0, 0, size, holds=whole),) if whole is not None else ()
        return DiskMap(Table.NONE, alone, size, code)
    if any(entry[1] == _PROTECTIVE for entry in used):
        found, problems = _gpt(file, size)
        table = Table.GPT
    else:
        found, problems = _mbr(file, sector, entries)
        table = Table.MBR
    inside = []
    for one in found:
        if one.offset + one.size > size:
            problems.append(f"partition {one.number} reaches beyond the end of the disk")
        else:
            inside.append(replace(one, holds=probe(file, one.offset)))
    problems += _overlaps(inside)
    return DiskMap(table, tuple(inside), size, code, tuple(problems))


def _overlaps(partitions: list[Partition]) -> list[str]:
    ordered = sorted(partitions, key=lambda one: one.offset)
    return [
        f"partitions {left.number} and {right.number} overlap"
        for left, right in itertools.pairwise(ordered)
        if left.offset + left.size > right.offset
    ]


def _mbr(
    file: BinaryIO, sector: bytes, entries: list[tuple[int, int, int, int]]
) -> tuple[list[Partition], list[str]]:
    (signature,) = struct.unpack_from("<I", sector, 440)
    found, problems = [], []
    number = 4
    for slot, (boot, kind, start, count) in enumerate(entries, 1):
        if not kind or not count:
            continue
        if kind in _EXTENDED:
            try:
                for logical in tuple(_logical(file, start)):
                    number += 1
                    found.append(_mbr_partition(number, signature, logical))
            except ValueError as error:
                problems.append(str(error))
        else:
            found.append(_mbr_partition(slot, signature, (boot, kind, start, count)))
    return found, problems


def _mbr_partition(number: int, signature: int, entry: tuple[int, int, int, int]) -> Partition:
    boot, kind, start, count = entry
    return Partition(
        number=number,
        offset=start * _SECTOR,
        size=count * _SECTOR,
        type=f"{kind:02x}",
        uuid=f"{signature:08x}-{number:02x}",
        bootable=boot == 0x80,
    )


def _logical(file: BinaryIO, first: int) -> Iterator[tuple[int, int, int, int]]:
    """The logical partitions: a chain of sectors, each with one and a pointer to the next.

    Raises:
        ValueError: The chain is broken, or endless.
    """
    at = first
    seen = {first}
    for _ in range(_MOST_PARTITIONS):
        sector = read_at(file, at * _SECTOR, _SECTOR)
        if sector[510:512] != _BOOT_SIGNATURE:
            raise ValueError("the chain of logical partitions is broken")
        boot, kind, start, count = _ENTRY.unpack_from(sector, _TABLE)
        if kind and count:
            yield boot, kind, at + start, count
        _boot, kind, start, count = _ENTRY.unpack_from(sector, _TABLE + 16)
        if kind not in _EXTENDED or not count:
            return
        at = first + start
        if at in seen:
            raise ValueError("the chain of logical partitions leads back")
        seen.add(at)
    raise ValueError(f"there are more than {_MOST_PARTITIONS} logical partitions")


def _gpt(file: BinaryIO, size: int) -> tuple[list[Partition], list[str]]:
    """The partitions of the first GPT, or of the backup where that one is damaged."""
    problems: list[str] = []
    for name, at in (("primary", _SECTOR), ("backup", max(size - _SECTOR, 0))):
        try:
            return list(_gpt_entries(file, at, size)), problems
        except ValueError as error:
            problems.append(f"the {name} GPT {error}")
    return [], problems


def _gpt_entries(file: BinaryIO, at: int, size: int) -> Iterator[Partition]:
    content = read_at(file, at, _SECTOR)
    (magic, _revision, length, crc, _r, _own, _other, _first, _last, _disk, table, count, entry,
     table_crc) = _GPT_HEADER.unpack_from(content)  # fmt: skip
    if magic != b"EFI PART" or not _GPT_HEADER.size <= length <= _SECTOR:
        raise ValueError("is not there")
    bare = content[:16] + bytes(4) + content[20:length]
    if zlib.crc32(bare) != crc:
        raise ValueError("has a wrong checksum")
    if not _GPT_ENTRY.size <= entry <= _LARGEST_ENTRY or not 0 < count <= _MOST_PARTITIONS:
        raise ValueError(f"says that it has {count} entries of {entry} bytes")
    if table * _SECTOR + count * entry > size:
        raise ValueError("has a table outside of the disk")
    entries = read_at(file, table * _SECTOR, count * entry)
    if zlib.crc32(entries) != table_crc:
        raise ValueError("has a table with a wrong checksum")
    for number in range(count):
        kind, own, first, last, flags, name = _GPT_ENTRY.unpack_from(entries, number * entry)
        if any(kind) and first <= last:
            yield Partition(
                number=number + 1,
                offset=first * _SECTOR,
                size=(last - first + 1) * _SECTOR,
                type=str(uuid.UUID(bytes_le=kind)),
                uuid=str(uuid.UUID(bytes_le=own)),
                name=name.decode("utf-16-le", "replace").split("\x00")[0],
                bootable=bool(flags & 4),
            )

"""The header of a qcow2, read without QEMU, and what of it is not safe.

Fields and feature bits: QEMU's docs/interop/qcow2.txt.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO

from blocks.errors import UnsafeImage

MAGIC = b"QFI\xfb"

_FIXED = struct.Struct(">4sIQIIQIIQQIIQ")
_VERSION_3 = struct.Struct(">QQQII")
_LUKS_PLACE = struct.Struct(">QQ")
_VERSION_2_LENGTH = 72
_DATA_FILE_BIT = 1 << 2
_KNOWN_INCOMPATIBLE = (1 << 3) | (1 << 4)  # compression type, extended L2 entries
_END = 0
_BACKING_FORMAT = 0xE2792ACA
_DATA_FILE = 0x44415441
_FULL_DISK_ENCRYPTION = 0x0537BE77
_MOST_SNAPSHOTS = 64
_LUKS = 2
#: LUKS's own header with its key slots; QEMU makes one of about 2 MiB.
_LONGEST_LUKS_HEADER = 64 * 1024 * 1024


@dataclass(frozen=True)
class Qcow2Header:
    """What a qcow2 says of itself.

    Attributes:
        file_length: The file's length in bytes.
        tables: Name, offset and length in bytes of each table that the header points to.
        extensions: The kinds of its header extensions; None where they have no end.
        luks_header: Where a LUKS header is: offset and length in bytes.
    """

    file_length: int
    version: int
    backing_offset: int
    cluster_bits: int
    size: int
    encryption: int
    l1_entries: int
    snapshots: int
    incompatible: int
    header_length: int
    tables: tuple[tuple[str, int, int], ...]
    extensions: tuple[int, ...] | None
    luks_header: tuple[int, int] | None = None

    def require_safe(self, *, encrypted: bool = False) -> int:
        """Refuse what reaches outside of the file, or is out of all proportion.

        Args:
            encrypted: Whether it is said to be encrypted with LUKS.

        Returns:
            The virtual size in bytes.

        Raises:
            UnsafeImage: The message says what it is.
        """
        for wrong, message in (*self._findings(), *self._encryption_findings(encrypted)):
            if wrong:
                raise UnsafeImage(message)
        return self.size

    def _findings(self) -> list[tuple[bool, str]]:
        cluster = 1 << min(self.cluster_bits, 63)
        extensions = self.extensions or ()
        return [
            (self.version not in (2, 3), f"the qcow2 version is {self.version}"),
            (self.backing_offset != 0, "the qcow2 has a backing file"),
            (bool(self.incompatible & _DATA_FILE_BIT), "the qcow2 has an external data file"),
            (
                bool(self.incompatible & ~(_KNOWN_INCOMPATIBLE | _DATA_FILE_BIT)),
                f"the qcow2 is damaged or unknown (features {self.incompatible:#x})",
            ),
            (
                not 9 <= self.cluster_bits <= 21,
                f"the qcow2's cluster size is 2^{self.cluster_bits}",
            ),
            (self.snapshots > _MOST_SNAPSHOTS, f"the qcow2 has {self.snapshots} snapshots"),
            *(
                (
                    offset % cluster != 0 or offset + length > self.file_length,
                    f"the qcow2's {name} table lies outside of the file",
                )
                for name, offset, length in self.tables
            ),
            # An L1 entry stands for a cluster of L2 entries of 8 (extended: 16) bytes.
            (
                self.l1_entries * cluster * (cluster // 16) > 4 * max(self.size, cluster**2),
                f"the qcow2's L1 table has {self.l1_entries} entries",
            ),
            (
                not 72 <= self.header_length <= cluster or self.header_length % 8 != 0,
                f"the qcow2's header has {self.header_length} bytes",
            ),
            (self.extensions is None, "the qcow2's header extensions have no end"),
            (_DATA_FILE in extensions, "the qcow2 names an external data file"),
            (_BACKING_FORMAT in extensions, "the qcow2 names a backing format"),
        ]

    def _encryption_findings(self, encrypted: bool) -> list[tuple[bool, str]]:
        offset, length = self.luks_header or (0, 0)
        cluster = 1 << min(self.cluster_bits, 63)
        inside = cluster <= offset and offset % cluster == 0
        inside = inside and offset + length <= self.file_length
        return [
            (self.encryption != 0 and not encrypted, "the qcow2 is encrypted"),
            (self.encryption == 0 and encrypted, "the qcow2 is not encrypted"),
            (encrypted and self.encryption != _LUKS, "the qcow2 is encrypted, but not with LUKS"),
            (
                encrypted and not (inside and 0 < length <= _LONGEST_LUKS_HEADER),
                "the qcow2's LUKS header lies outside of the file",
            ),
            (
                not encrypted and self.luks_header is not None,
                "the qcow2 has a LUKS header, but is not encrypted",
            ),
        ]


def read_header(file: BinaryIO, file_length: int) -> Qcow2Header:
    """Read a qcow2's header.

    Args:
        file: The image; its magic bytes were compared before.
        file_length: Its length in bytes.

    Raises:
        UnsafeImage: The file ends within the header.
    """
    file.seek(0)
    header = file.read(_FIXED.size + _VERSION_3.size)
    if len(header) < _FIXED.size + _VERSION_3.size:
        raise UnsafeImage("the qcow2 header is cut off")
    (
        _magic, version, backing_offset, _backing_length, cluster_bits, size, encryption,
        l1_entries, l1_offset, refcount_offset, refcount_clusters, snapshots, snapshots_offset,
    ) = _FIXED.unpack_from(header)  # fmt: skip
    incompatible, header_length = 0, _VERSION_2_LENGTH
    if version >= 3:
        incompatible, _compatible, _autoclear, _order, header_length = _VERSION_3.unpack_from(
            header, _FIXED.size
        )
    cluster = 1 << min(cluster_bits, 21)
    extensions = _extensions(file, header_length, cluster)
    return Qcow2Header(
        file_length=file_length,
        version=version,
        backing_offset=backing_offset,
        cluster_bits=cluster_bits,
        size=size,
        encryption=encryption,
        l1_entries=l1_entries,
        snapshots=snapshots,
        incompatible=incompatible,
        header_length=header_length,
        tables=(
            ("L1", l1_offset, l1_entries * 8),
            ("refcount", refcount_offset, refcount_clusters * cluster),
            ("snapshot", snapshots_offset, snapshots),
        ),
        extensions=None if extensions is None else tuple(kind for kind, _data in extensions),
        luks_header=_luks_header(extensions or ()),
    )


def _extensions(file: BinaryIO, start: int, cluster: int) -> list[tuple[int, bytes]] | None:
    """The header extensions, which all lie in the first cluster: kind and content."""
    file.seek(0)
    first = file.read(cluster)
    found: list[tuple[int, bytes]] = []
    offset = start
    while offset + 8 <= len(first):
        kind, length = struct.unpack_from(">II", first, offset)
        if kind == _END:
            return found
        found.append((kind, first[offset + 8 : offset + 8 + length]))
        offset += 8 + (length + 7) // 8 * 8
    return None


def _luks_header(extensions: Iterable[tuple[int, bytes]]) -> tuple[int, int] | None:
    """Where the LUKS header is; (0, 0), which is nowhere, where that cannot be told."""
    for kind, data in extensions:
        if kind == _FULL_DISK_ENCRYPTION:
            if len(data) != _LUKS_PLACE.size:
                return 0, 0
            offset, length = _LUKS_PLACE.unpack(data)
            return offset, length
    return None

"""What a file is by its magic bytes: disk images, and what they come wrapped in."""

from __future__ import annotations

import os
from typing import BinaryIO

from blocks.images.formats.reader import SECTOR
from blocks.images.qcow2_header import MAGIC as _QCOW2

#: What is unpacked before it is looked at again.
WRAPPINGS = ("gzip", "xz", "zstd")

#: What a raw image must not look like: (offset, bytes, name).
_MAGICS = (
    (0, _QCOW2, "qcow2"),
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk (of ESX)"),
    (0, b"QED\x00", "qed"),
    (0, b"vhdxfile", "vhdx"),
    (0, b"conectix", "vhd"),
    (0, b"LUKS\xba\xbe", "luks"),
    (0, b"WithoutFreeSpace", "parallels"),
    (0, b"WithouFreSpacExt", "parallels"),
    (0, b"Bochs Virtual HD Image", "bochs"),
    (0, b"#!/bin/sh\n#V2.0 Format\n", "cloop"),
    (0, b"OOOM", "cow"),
    (64, b"\x7f\x10\xda\xbe", "vdi"),
    (0, b"\x1f\x8b", "gzip"),
    (0, b"\xfd7zXZ\x00", "xz"),
    (0, b"\x28\xb5\x2f\xfd", "zstd"),
    (0, b"BZh", "bzip2"),
    (0, b"PK\x03\x04", "zip"),
    (0, b"7z\xbc\xaf\x27\x1c", "7z"),
    (0, b"Rar!\x1a\x07", "rar"),
    (0, b"MSWIM\x00", "wim"),
    (257, b"ustar", "tar"),
)


def looks_like(file: BinaryIO) -> str | None:
    """The name of the format whose magic bytes a file has; None for raw."""
    file.seek(0)
    start = file.read(4096)
    for offset, magic, name in _MAGICS:
        if start[offset : offset + len(magic)] == magic:
            return name
    if _is_vmdk_descriptor(start):
        return "a vmdk descriptor"
    file.seek(0, os.SEEK_END)
    if file.tell() >= SECTOR:
        file.seek(-SECTOR, os.SEEK_END)
        footer = file.read(SECTOR)
        if footer.startswith(b"conectix"):
            return "vhd"
        if footer.startswith(b"koly"):
            return "dmg"
    return None


def _is_vmdk_descriptor(start: bytes) -> bool:
    """Whether it is the text of a VMDK; like QEMU, blank lines and comments are passed over."""
    for line in (one.strip(b" \r\t") for one in start.lower().split(b"\n")):
        if line == b"# disk descriptorfile" or line.startswith(b"version="):
            return True
        if line and not line.startswith(b"#"):
            return False
    return False

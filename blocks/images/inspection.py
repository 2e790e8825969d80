"""Looking at an image before anything else opens it.

The header is read here, in Python: first what the file is, by its magic bytes, against what
it is said to be; then what a qcow2 says of itself. Only then `qemu-img info` has a look, with
the format given and under limits. What reaches outside of itself is refused: a backing file,
an external data file, an extent of a VMDK.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from blocks.errors import FiftyError, NotFound, UnsafeImage
from blocks.images import qemu_img
from blocks.images.qcow2_header import MAGIC, read_header
from blocks.resources.image import ImageFormat

#: Larger than any disk here, and small enough for QEMU's tables to stay small.
LARGEST_DISK = 16 * 1024**4
_SECTOR = 512

#: What a raw image must not look like: (offset, bytes, name).
_MAGICS = (
    (0, MAGIC, "qcow2"),
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"QED\x00", "qed"),
    (0, b"vhdxfile", "vhdx"),
    (0, b"conectix", "vhd"),
    (0, b"LUKS\xba\xbe", "luks"),
    (0, b"WithoutFreeSpace", "parallels"),
    (0, b"WithouFreSpacExt", "parallels"),
    (0, b"Bochs Virtual HD Image", "bochs"),
    (0, b"OOOM", "cow"),
    (64, b"\x7f\x10\xda\xbe", "vdi"),
)


@dataclass(frozen=True)
class Inspection:
    """What an image that passed is.

    Attributes:
        format: Its format.
        size_bytes: The file's length.
        virtual_size_bytes: What a guest sees.
    """

    format: ImageFormat
    size_bytes: int
    virtual_size_bytes: int


def inspect(path: Path, declared: ImageFormat) -> Inspection:
    """Look whether a file is the image that it is said to be, and only that.

    Args:
        path: The file; not a link.
        declared: The format that it is said to have.

    Raises:
        NotFound: There is no such file.
        UnsafeImage: It is something else, or reaches outside of itself, or is out of all
            proportion; the message says what.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise NotFound(f"there is no image file {path}") from error
    except OSError as error:
        raise UnsafeImage(f"{path} cannot be opened: {error.strerror}") from error
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise UnsafeImage(f"{path} is not a regular file")
        actual = _looks_like(file)
        if declared is ImageFormat.QCOW2:
            if actual != "qcow2":
                raise UnsafeImage(f"{path} is said to be qcow2, but is {actual or 'raw'}")
            virtual_size = read_header(file, status.st_size).require_safe()
        else:
            if actual is not None:
                raise UnsafeImage(f"{path} is said to be raw, but is {actual}")
            virtual_size = status.st_size
        if not 0 < virtual_size <= LARGEST_DISK or virtual_size % _SECTOR:
            raise UnsafeImage(f"{path} has a virtual size of {virtual_size} bytes")
    _compare_with_qemu(path, declared, virtual_size)
    return Inspection(declared, status.st_size, virtual_size)


def _looks_like(file: BinaryIO) -> str | None:
    """The name of the format whose magic bytes the file has; None for raw."""
    file.seek(0)
    start = file.read(4096)
    for offset, magic, name in _MAGICS:
        if start[offset : offset + len(magic)] == magic:
            return name
    if _is_vmdk_descriptor(start):
        return "a vmdk descriptor"
    file.seek(0, os.SEEK_END)
    if file.tell() >= _SECTOR:
        file.seek(-_SECTOR, os.SEEK_END)
        footer = file.read(_SECTOR)
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


def _compare_with_qemu(path: Path, declared: ImageFormat, virtual_size: int) -> None:
    """QEMU, under limits and told the format, must see the same as we did."""
    try:
        seen = qemu_img.info(path, declared)
    except FiftyError as error:
        raise UnsafeImage(f"qemu-img cannot read {path}: {error.message}") from error
    if seen.backing_file or seen.data_file or seen.encrypted:
        raise UnsafeImage(f"{path} reaches outside of itself, says qemu-img")
    if seen.virtual_size_bytes != virtual_size:
        raise UnsafeImage(f"{path} has another virtual size, says qemu-img")

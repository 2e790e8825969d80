"""Looking at an image before anything else opens it.

The file is read here, in Python: first what it is, by its magic bytes, against what it is
said to be; then what its header and tables say. Only then `qemu-img info` has a look, with
the format given, under limits, and with no other file in reach. What reaches outside of
itself is refused: a backing file, an external data file, a parent, an extent of a VMDK.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from blocks.commands import open_name
from blocks.errors import FiftyError, NotFound, UnsafeImage
from blocks.images import qcow2_header, qemu_img
from blocks.images.formats import vdi, vhdx, vmdk
from blocks.images.formats.magic import looks_like
from blocks.images.formats.reader import LARGEST_DISK, SECTOR
from blocks.resources.image import ImageFormat, SourceFormat

#: The virtual size by a file's own header and tables; they raise UnsafeImage.
_FOREIGN: Mapping[SourceFormat, Callable[[BinaryIO, int], int]] = {
    SourceFormat.VMDK: vmdk.virtual_size,
    SourceFormat.VDI: vdi.virtual_size,
    SourceFormat.VHDX: vhdx.virtual_size,
}


@dataclass(frozen=True)
class Inspection:
    """What an image that passed is.

    Attributes:
        format: Its format.
        size_bytes: The file's length.
        virtual_size_bytes: What a guest sees.
        encrypted: Whether its content is encrypted (LUKS).
    """

    format: SourceFormat
    size_bytes: int
    virtual_size_bytes: int
    encrypted: bool = False


def inspect(
    path: Path, declared: ImageFormat | SourceFormat, *, encrypted: bool = False
) -> Inspection:
    """Look whether a file is the image that it is said to be, and only that.

    Args:
        path: The file; not a link.
        declared: The format that it is said to have.
        encrypted: Whether it is said to be encrypted: a qcow2 with LUKS inside.

    Raises:
        NotFound: There is no such file.
        UnsafeImage: It is something else, or reaches outside of itself, or is out of all
            proportion; the message says what.
    """
    with open_regular(path) as file:
        return inspect_open(file, path, declared, encrypted=encrypted)


def inspect_open(
    file: BinaryIO, path: Path, declared: ImageFormat | SourceFormat, *, encrypted: bool = False
) -> Inspection:
    """The same of a file that is open: QEMU too sees that one, whatever the path leads to.

    Args:
        file: The file.
        path: Its path, for words only.
        declared: The format that it is said to have.
        encrypted: Whether it is said to be encrypted.

    Raises:
        UnsafeImage: As `inspect`.
    """
    form = SourceFormat(declared)
    length = os.fstat(file.fileno()).st_size
    virtual_size = read_virtual_size(file, length, form, encrypted=encrypted)
    try:
        seen = qemu_img.info_of_untrusted(open_name(file), form)
    except FiftyError as error:
        raise UnsafeImage(f"qemu-img cannot read {path}: {error.message}") from error
    if seen.backing_file or seen.data_file:
        raise UnsafeImage(f"{path} reaches outside of itself, says qemu-img")
    if seen.encrypted != encrypted:
        raise UnsafeImage(f"{path} is encrypted, or is not, against what was said")
    if seen.virtual_size_bytes != virtual_size:
        raise UnsafeImage(f"{path} has another virtual size, says qemu-img")
    return Inspection(form, length, virtual_size, encrypted)


def read_virtual_size(
    file: BinaryIO, length: int, form: SourceFormat, *, encrypted: bool = False
) -> int:
    """The part of an inspection that needs no QEMU.

    Args:
        file: The image.
        length: Its length in bytes.
        form: The format that it is said to have.
        encrypted: Whether it is said to be encrypted.

    Returns:
        What a guest sees, in bytes.

    Raises:
        UnsafeImage: It is something else, or is not safe.
    """
    actual = looks_like(file)
    if (actual or SourceFormat.RAW) != form:
        raise UnsafeImage(
            f"the image is said to be {form}, but is {actual or 'raw'}",
            hint="say what it is; what is an archive inside is unpacked first",
        )
    if form is SourceFormat.RAW:
        virtual_size = length
    elif form is SourceFormat.QCOW2:
        header = qcow2_header.read_header(file, length)
        virtual_size = header.require_safe(encrypted=encrypted)
    else:
        virtual_size = _FOREIGN[form](file, length)
    if not 0 < virtual_size <= LARGEST_DISK or virtual_size % SECTOR:
        raise UnsafeImage(f"the image has a virtual size of {virtual_size} bytes")
    return virtual_size


def open_regular(path: Path) -> BinaryIO:
    """Open a file that has to be one, and not a link, a pipe or a device.

    Raises:
        NotFound: There is no such file.
        UnsafeImage: It is something else, or cannot be opened.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFound(
            f"there is no image file {path}", hint="give the path of a file of this host, or a URL"
        ) from error
    except OSError as error:
        raise UnsafeImage(f"{path} cannot be opened: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise UnsafeImage(f"{path} is not a regular file")
    return os.fdopen(handle, "rb")

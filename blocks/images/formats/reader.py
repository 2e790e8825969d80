"""Reading a file that is not trusted: no further than its end, and never much at once."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

from blocks.errors import UnsafeImage

SECTOR = 512
#: Larger than any disk here, and small enough for its tables, and QEMU's, to stay small.
LARGEST_DISK = 16 * 1024**4
_CHUNK = 1024 * 1024


class Reader:
    """An image file.

    Args:
        file: The file.
        length: Its length in bytes.
        name: Its format, for messages.
    """

    def __init__(self, file: BinaryIO, length: int, name: str) -> None:
        self._file = file
        self.length = length
        self.name = name

    def at(self, offset: int, length: int) -> bytes:
        """Some bytes.

        Raises:
            UnsafeImage: They do not all lie in the file.
        """
        self.require(offset >= 0 and offset + length <= self.length, "points outside of the file")
        self._file.seek(offset)
        found = self._file.read(length)
        self.require(len(found) == length, "is cut off")
        return found

    def unpack(self, form: str, offset: int) -> tuple[Any, ...]:
        """A structure, as `struct.unpack` gives it."""
        return struct.unpack(form, self.at(offset, struct.calcsize(form)))

    def chunks(self, offset: int, length: int) -> Iterator[bytes]:
        """A long table, a piece after the other; a piece's length is a multiple of 8."""
        while length > 0:
            piece = self.at(offset, min(length, _CHUNK))
            yield piece
            offset, length = offset + len(piece), length - len(piece)

    def require(self, holds: bool, otherwise: str) -> None:
        """Refuse the image unless something holds.

        Raises:
            UnsafeImage: It does not; `otherwise` says what is wrong with the image.
        """
        if not holds:
            raise UnsafeImage(f"the {self.name} {otherwise}")

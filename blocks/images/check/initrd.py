"""The names in an initial RAM disk: cpio archives one after the other, some of them packed.

Unpacked as a stream up to a limit, and never onto a file system: only names are wanted.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from blocks.commands import Confinement, Limits
from blocks.errors import UnsafeImage, Unsupported

_MIB = 1024 * 1024
_MOST_UNPACKED = 1024 * _MIB
_LIMITS = Limits(memory_bytes=1024 * _MIB, cpu_s=60)
_HEADER = 110
_LONGEST_NAME = 4096
_CPIO = (b"070701", b"070702")
_TRAILER = "TRAILER!!!"
#: What the packed ones begin with, and the program that unpacks them.
_PROGRAMS = {
    b"\x1f\x8b": ("gzip", "-q", "-d", "-c"),
    b"\xfd7zXZ": ("xz", "-q", "-d", "-c"),
    b"\x5d\x00\x00": ("xz", "-q", "-d", "-c"),
    b"\x28\xb5\x2f\xfd": ("zstd", "-q", "-d", "-c"),
    b"\x02\x21\x4c\x18": ("lz4", "-q", "-d", "-c"),
    b"\x04\x22\x4d\x18": ("lz4", "-q", "-d", "-c"),
}


def names_in(content: bytes) -> set[str]:
    """The names of all files in an initial RAM disk.

    Args:
        content: The file.

    Raises:
        UnsafeImage: It is none, or unpacks to more than a limit.
        Unsupported: It is packed in a way that is not known here.
    """
    names: set[str] = set()
    rest = io.BytesIO(content)
    while True:
        start = _after_zeros(rest)
        if not start:
            return names
        rest.seek(-len(start), io.SEEK_CUR)
        if start in _CPIO:
            names |= set(_names(rest))
            continue
        words = next((_PROGRAMS[one] for one in _PROGRAMS if start.startswith(one)), None)
        if words is None:
            raise Unsupported(f"the initial RAM disk begins with {start!r}: what is that?")
        with io.BufferedReader(_Unpacked(rest, words), _MIB) as stream:
            return names | set(_names(stream))


def _after_zeros(stream: BinaryIO) -> bytes:
    """The first six bytes that are not filling."""
    while True:
        byte = stream.read(1)
        if not byte:
            return b""
        if byte != b"\x00":
            return byte + stream.read(5)


def _names(stream: BinaryIO) -> Iterator[str]:
    """The names of one archive (cpio(5), "New ASCII Format")."""
    while True:
        header = stream.read(_HEADER)
        if len(header) < _HEADER or header[:6] not in _CPIO:
            raise UnsafeImage("the initial RAM disk is no cpio archive, or ends too early")
        try:
            size, length = int(header[54:62], 16), int(header[94:102], 16)
        except ValueError as error:
            raise UnsafeImage("the initial RAM disk is not in order") from error
        if not 0 < length <= _LONGEST_NAME:
            raise UnsafeImage("the initial RAM disk has a name without end")
        name = stream.read(length).rstrip(b"\x00").decode("utf-8", "replace")
        _skip(stream, -(_HEADER + length) % 4)
        if name == _TRAILER:
            return
        yield name
        _skip(stream, size + -size % 4)


def _skip(stream: BinaryIO, count: int) -> None:
    while count:
        part = stream.read(min(count, _MIB))
        if not part:
            raise UnsafeImage("the initial RAM disk ends too early")
        count -= len(part)


class _Unpacked(io.RawIOBase):
    """What a program unpacks, up to a limit; the program ends when this is closed."""

    def __init__(self, packed: BinaryIO, words: Sequence[str]) -> None:
        with tempfile.TemporaryFile() as source:
            shutil.copyfileobj(packed, source)
            source.seek(0)
            self._program = subprocess.Popen(
                Confinement(_LIMITS).wrapped(words),
                stdin=source,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
            )
        self._left = _MOST_UNPACKED

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - as io.RawIOBase has it
        assert self._program.stdout is not None  # noqa: S101 - asked for above
        part = self._program.stdout.read(len(buffer)) or b""
        self._left -= len(part)
        if self._left < 0:
            raise UnsafeImage("the initial RAM disk unpacks to more than 1 GiB")
        buffer[: len(part)] = part
        return len(part)

    def close(self) -> None:
        self._program.kill()
        with self._program:
            super().close()

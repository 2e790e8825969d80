"""Unpacking gzip, xz and zstd: to a size limit, and without filling the disk with zeros."""

from __future__ import annotations

import hashlib
import lzma
import os
import subprocess
import zlib
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

from blocks.commands import Confinement, Limits
from blocks.errors import UnsafeImage

_CHUNK = 1024 * 1024
#: A file is looked at in pieces of this length; those that are zero are left out, and at the
#: end of what came at once shorter ones too: a block of a file system is the least.
_HOLE, _LEAST_HOLE = 64 * 1024, 4096
_ZEROS = bytes(_HOLE)
#: xz -9 needs 65 MiB to unpack.
_XZ_MEMORY = 128 * 1024**2
#: zstd --long=27, 128 MiB, is the most that it unpacks unasked.
_ZSTD_LIMITS = Limits(memory_bytes=1024**3, cpu_s=3600, file_bytes=0)


def unpack(
    source: Path, wrapping: str, target: Path, limit: int, progress: Callable[[int], None]
) -> None:
    """Unpack a file; where it is zero, the result has holes.

    Args:
        source: What is packed.
        wrapping: `gzip`, `xz` or `zstd`.
        target: The file to make.
        limit: The most bytes that it may have.
        progress: Told now and then how many bytes there are.

    Raises:
        UnsafeImage: It is damaged, or cut off, or larger than the limit.
    """
    with (
        source.open("rb") as packed,
        target.open("wb") as file,
        closing(_UNPACKERS[wrapping](packed)) as chunks,
    ):
        done = 0
        try:
            for chunk in chunks:
                done += len(chunk)
                if done > limit:
                    raise UnsafeImage(
                        f"unpacked, the file has more than the {limit} bytes allowed",
                        hint="an operator can allow more: FIFTY_IMAGE_LIMIT_GIB",
                    )
                write_sparsely(file, chunk)
                progress(done)
        except (zlib.error, lzma.LZMAError, EOFError) as error:
            raise UnsafeImage(f"the {wrapping} file is damaged: {error}") from error
        file.truncate(done)


def write_sparsely(file: BinaryIO, chunk: bytes) -> None:
    """Write a chunk, and leave holes where it is zero; the file is truncated at the end."""
    begin = 0
    for at in range(0, len(chunk), _HOLE):
        size = min(_HOLE, len(chunk) - at)
        if size >= _LEAST_HOLE and chunk[at : at + size] == _ZEROS[:size]:
            file.write(memoryview(chunk)[begin:at])
            file.seek(size, os.SEEK_CUR)
            begin = at + size
    file.write(memoryview(chunk)[begin:])


def sha256_of(path: Path, progress: Callable[[int], None] | None = None) -> str:
    """A file's SHA-256."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(4 * _CHUNK):
            digest.update(chunk)
            if progress:
                progress(file.tell())
    return digest.hexdigest()


def _gzip(packed: BinaryIO) -> Generator[bytes]:
    rest = b""
    while rest or (rest := packed.read(_CHUNK)):
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            rest = rest or packed.read(_CHUNK)
            # Without any more input too: there may be output that had no room before.
            chunk = member.decompress(rest, _CHUNK)
            if chunk:
                yield chunk
            elif not rest and not member.eof:
                raise EOFError("it is cut off")
            rest = member.unused_data if member.eof else member.unconsumed_tail


def _xz(packed: BinaryIO) -> Generator[bytes]:
    rest = b""
    while rest or (rest := packed.read(_CHUNK)):
        stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
        while not stream.eof:
            if stream.needs_input and not rest and not (rest := packed.read(_CHUNK)):
                raise EOFError("it is cut off")
            chunk = stream.decompress(rest, _CHUNK)
            rest = b""
            if chunk:
                yield chunk
        rest = stream.unused_data


def _zstd(packed: BinaryIO) -> Generator[bytes]:
    """By the program: the standard library has no zstd."""
    words = Confinement(_ZSTD_LIMITS).wrapped(["zstd", "-d", "-c", "-q", "--no-progress"])
    with subprocess.Popen(
        words, stdin=packed, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None  # noqa: S101 - for the type checker
        assert process.stderr is not None  # noqa: S101
        try:
            while chunk := process.stdout.read(_CHUNK):
                yield chunk
            said = process.stderr.read(1000).decode(errors="replace")
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise EOFError(" ".join(said.split())[-200:] or f"zstd ended with {process.returncode}")


_UNPACKERS: dict[str, Callable[[BinaryIO], Generator[bytes]]] = {
    "gzip": _gzip,
    "xz": _xz,
    "zstd": _zstd,
}

"""Files of this host that are imported from where they lie: not copied first, but watched.

What reads such a file is given it open, and is kept from all others; and before and after
it is compared with what it was at first. A kernel that cannot keep a program from files
(`blocks.confined`) gets a copy instead: what was inspected cannot change then.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pydantic import BaseModel, ConfigDict

from blocks.errors import UnsafeImage
from blocks.images.files import replacing
from blocks.images.inspection import open_regular
from blocks.images.intake.download import Progress
from blocks.images.intake.unpacking import write_sparsely

_CHUNK = 4 * 1024 * 1024
_NOTE = "original.json"
#: The files of an import in its own directory.
SOURCE, UNPACKED = "source", "unpacked"


class Original(BaseModel):
    """A file as it was when its import began (stat(2)).

    Attributes:
        path: Where it lies; no link.
        size_bytes: Its length.
        modified_ns: When its content changed last; `changed_ns` also counts its owner and the
            like, and cannot be set back.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    device: int
    inode: int
    size_bytes: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, file: BinaryIO, path: Path) -> Original:
        """What an open file is now."""
        status = os.fstat(file.fileno())
        return cls(
            path=path,
            device=status.st_dev,
            inode=status.st_ino,
            size_bytes=status.st_size,
            modified_ns=status.st_mtime_ns,
            changed_ns=status.st_ctime_ns,
        )

    @contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """The file, as it was: also when the block is left.

        Raises:
            NotFound: It is gone.
            UnsafeImage: It is another one, or has changed.
        """
        with open_regular(self.path) as file:
            self._require_same(file)
            yield file
            self._require_same(file)

    def _require_same(self, file: BinaryIO) -> None:
        if Original.of(file, self.path) != self:
            raise UnsafeImage(
                f"the file {self.path} has changed while it was imported",
                hint="try again when nothing writes to it",
            )


def note(folder: Path, original: Original) -> None:
    """Note in an image's own directory which file it is made of."""
    with replacing(folder / _NOTE, mode=0o600) as part:
        part.write_text(original.model_dump_json())


def noted(folder: Path) -> Original | None:
    """The file that an image is made of; None where it is one in its own directory."""
    path = folder / _NOTE
    return Original.model_validate_json(path.read_bytes()) if path.exists() else None


def copy(reader: BinaryIO, target: Path, limit: int, progress: Progress) -> None:
    """Copy a file, its holes too.

    Args:
        reader: What is copied.
        target: The file to make.
        limit: The most bytes that it may have.
        progress: Told now and then.

    Raises:
        UnsafeImage: It grows beyond the limit.
    """
    total = os.fstat(reader.fileno()).st_size
    reader.seek(0)
    with target.open("wb") as writer:
        done = 0
        while chunk := reader.read(_CHUNK):
            write_sparsely(writer, chunk)
            done += len(chunk)
            if done > limit:
                raise UnsafeImage(f"the file grows beyond the {limit} bytes allowed")
            progress(done, total)
        writer.truncate(done)


@contextmanager
def source(folder: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """What an import takes, open, and its path: a file in its own directory, or an original.

    Raises:
        NotFound: It is gone.
        UnsafeImage: It has changed since the import began.
    """
    original = noted(folder)
    path = original.path if original else folder / SOURCE
    with original.opened() if original else open_regular(path) as file:
        yield file, path


@contextmanager
def content(folder: Path, path: Path) -> Iterator[BinaryIO]:
    """What was inspected, open: the source, or what was unpacked from it; raises as `source`."""
    if path == folder / UNPACKED:
        with open_regular(path) as file:
            yield file
    else:
        with source(folder) as (file, _path):
            yield file

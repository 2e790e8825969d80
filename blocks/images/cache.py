"""This host's base images: copies of the catalogue's, named by their checksum.

A file appears in the cache only by a rename, after its checksum was compared and its content
inspected; so what is there is whole. Bases are root's, readable by QEMU, never written.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from blocks import changes
from blocks.errors import NotFound, UnsafeImage
from blocks.images.files import is_part, replacing, size_on_disk
from blocks.images.inspection import inspect
from blocks.images.intake.unpacking import write_sparsely
from blocks.images.locks import locked
from blocks.resources.image import Image

#: Bytes that are there, and bytes in all.
FetchProgress = Callable[[int, int], None]

_CHUNK = 4 * 1024 * 1024


@dataclass(frozen=True)
class Needed:
    """The checksums of bases that something needs.

    Attributes:
        used: Disks are based on these.
        offered: These are active images': the next VM may be made from one.
    """

    used: frozenset[str]
    offered: frozenset[str]


@dataclass(frozen=True)
class Idle:
    """Which bases are kept that are offered, but not used.

    Attributes:
        older_than_s: Those that were used in so many seconds.
        most_bytes: So many bytes of them, those first that were used last.
    """

    older_than_s: float
    most_bytes: float


class BaseCache:
    """The cache of base images.

    Args:
        directory: Where it is.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(self, image: Image) -> Path:
        """Where the base of an image is, or will be."""
        return self._directory / f"{image.sha256}.{image.format}"

    def fetch(self, image: Image, progress: FetchProgress) -> Path:
        """Have the base of an image in the cache; of several callers one copies, the others wait.

        Args:
            image: The image; `path` names its file in the catalogue.
            progress: Called now and then while copying.

        Returns:
            The file in the cache.

        Raises:
            NotFound: The catalogue's file is gone.
            UnsafeImage: Its content is not what the catalogue says, or not safe.
        """
        base = self.path(image)
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o755)
        with locked(base.with_suffix(".lock")):
            if base.is_file() and base.stat().st_size == image.size_bytes:
                os.utime(base)  # when it was last used: see `remove_others`
                return base
            with replacing(base, mode=0o644, to_directory_owner=False) as part:
                digest = copy_sparsely(Path(image.path), part, progress)
                if digest != image.sha256:
                    raise UnsafeImage(
                        f"the file of image {image.name} has the checksum {digest}, "
                        f"the catalogue says {image.sha256}",
                        hint="build or import the image again",
                    )
                inspect(part, image.format, encrypted=image.encrypted)
        changes.record(f"Fetched the base of image {image.name}", ["cp", image.path, str(base)])
        return base

    def remove(self, image: Image) -> None:
        """Remove the base of an image that no disk is based on any more."""
        base = self.path(image)
        if base.is_file():
            base.unlink()
            changes.record(f"Removed the base of image {image.name}", ["rm", str(base)])

    def remove_others(self, needed: Callable[[], Needed], idle: Idle) -> dict[str, int]:
        """Remove the bases that nothing needs, and of those that may be needed some.

        Args:
            needed: Which ones something needs, or may need; asked while the file is locked,
                so that a base that is fetched meanwhile stays.
            idle: How many of those that only may be needed are kept.

        Returns:
            The bytes that each removed file's name freed.
        """
        freed = {}
        kept_bytes = 0
        for base in self._latest_first():
            with locked(base.with_suffix(".lock")):
                if not base.is_file():
                    continue
                size = size_on_disk(base)
                now = needed()
                if base.stem in now.used:
                    continue
                unused_s = time.time() - base.stat().st_mtime
                if base.stem in now.offered and unused_s < idle.older_than_s:
                    kept_bytes += size
                    if kept_bytes <= idle.most_bytes:
                        continue
                freed[base.name] = size
                base.unlink()
                changes.record(f"Removed the base {base.name}", ["rm", str(base)])
        return freed

    def _latest_first(self) -> list[Path]:
        """The bases, those first that were used last."""
        used = []
        for base in self._directory.glob("*"):
            if base.suffix == ".lock" or is_part(base):
                continue
            with suppress(FileNotFoundError):
                used.append((base.stat().st_mtime, base))
        return [base for _at, base in sorted(used, reverse=True)]


def copy_sparsely(source: Path, target: Path, progress: FetchProgress) -> str:
    """Copy a file, leaving holes where it is zero; its SHA-256."""
    digest = hashlib.sha256()
    try:
        reader = source.open("rb")
    except FileNotFoundError as error:
        raise NotFound(f"the image file {source} is gone", hint="build it again") from error
    with reader, target.open("wb") as writer:
        total = os.fstat(reader.fileno()).st_size
        done = 0
        progress(0, total)
        while chunk := reader.read(_CHUNK):
            digest.update(chunk)
            write_sparsely(writer, chunk)
            done += len(chunk)
            progress(done, total)
        writer.truncate(done)
    return digest.hexdigest()

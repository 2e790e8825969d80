"""Files that are there whole or not at all: written beside, flushed, then renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from blocks.errors import fault_of_host

_PART = ".part"
#: What `st_blocks` counts in, whatever the file system (stat(2)).
_BLOCK = 512


def part_of(path: Path) -> Path:
    """The temporary name beside a file; the same at every try, so that none is left over."""
    return path.with_name(f"{path.name}{_PART}")


def is_part(path: Path) -> bool:
    """Whether this is such a temporary name."""
    return path.name.endswith(_PART)


def size_on_disk(path: Path) -> int:
    """The bytes that a file takes: holes do not count. Nothing for one that is gone."""
    try:
        return path.stat().st_blocks * _BLOCK
    except FileNotFoundError:
        return 0


@contextmanager
def replacing(path: Path, mode: int, *, to_directory_owner: bool = True) -> Iterator[Path]:
    """Make a file under its temporary name, and give it its own when the block is left well.

    What a killed process left under the temporary name is removed first.

    Args:
        path: The file that is wanted.
        mode: Its permission bits.
        to_directory_owner: Whether it shall belong to the owner of its directory (QEMU's
            user, for an instance's directory).

    Yields:
        The temporary name, which the block fills; if it removes it, nothing is replaced.

    Raises:
        HostFault: There is no room for it, or the disk fails.
    """
    part = part_of(path)
    part.unlink(missing_ok=True)
    try:
        yield part
        if not part.exists():
            return
        with part.open("rb") as file:
            part.chmod(mode)
            if to_directory_owner:
                owner = path.parent.stat()
                os.chown(part, owner.st_uid, owner.st_gid)
            os.fsync(file.fileno())
        part.replace(path)
        sync_directory(path.parent)
    except BaseException as error:
        part.unlink(missing_ok=True)
        fault = fault_of_host(error, f"write {path}") if isinstance(error, OSError) else None
        if fault is not None:
            raise fault from error
        raise


def sync_directory(directory: Path) -> None:
    """Make renames and removals in a directory durable."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

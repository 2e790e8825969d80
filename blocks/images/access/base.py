"""What every way into an image's file systems can do: look, read, write, remove.

A path is always the guest's: absolute, resolved inside the image, through its links and the
file systems that its own /etc/fstab mounts. No link leads out of it.
"""

from __future__ import annotations

import stat
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath

from blocks.errors import InvalidRequest, NotFound, UnsafeImage
from blocks.images.file_systems import FileSystem
from blocks.images.partitions import DiskMap

_MIB = 1024 * 1024
#: More than any configuration file has.
TEXT_LIMIT = _MIB
#: Directories deeper than this, or with more entries, are not walked.
_DEEPEST = 64
_MOST_ENTRIES = 100_000


class Method(StrEnum):
    """The ways in; see `access.opening` for which is taken when."""

    DEBUGFS = "debugfs"
    LOOP = "loop"
    NBD = "nbd"
    LIBGUESTFS = "libguestfs"


@dataclass(frozen=True)
class Node:
    """A file, directory, link or other thing in a guest.

    Attributes:
        mode: Type and permission bits, as stat(2) gives them.
        uid: The owner; `gid` the group.
        size: A file's bytes; a link's length.
    """

    mode: int
    uid: int
    gid: int
    size: int

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.mode)

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        """Whether it is a symbolic link."""
        return stat.S_ISLNK(self.mode)

    @property
    def permissions(self) -> int:
        """The permission bits alone."""
        return stat.S_IMODE(self.mode)


@dataclass(frozen=True)
class Put:
    """A file as it shall be; missing directories are made, what is in its place is replaced.

    Attributes:
        path: Where; its directories may be links, the file itself takes a link's place.
        content: All of it.
        mode: Permission bits.
        uid: The owner; `gid` the group.
        private_folder: Its directory is the owner's own, mode 0700 (as `.ssh`).
    """

    path: str
    content: bytes
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    private_folder: bool = False


@dataclass(frozen=True)
class Remove:
    """A file, link, or directory with all below, that shall not be there.

    Attributes:
        path: Where; a link is removed, not what it points at.
    """

    path: str


Change = Put | Remove


class Access(ABC):
    """The file systems of one disk, open for as long as its context manager runs.

    Attributes:
        method: The way in.
        map: The disk's layout.
        mounts: What is mounted where in the guest; `/` is the root.
    """

    method: Method
    map: DiskMap
    mounts: Mapping[str, FileSystem]

    @abstractmethod
    def find(self, path: str, *, follow: bool = True) -> Node | None:
        """What is at a path; None for nothing.

        Args:
            path: In the guest.
            follow: Whether a link in the last place is followed.
        """

    @abstractmethod
    def link(self, path: str) -> str:
        """What a symbolic link says.

        Raises:
            NotFound: There is no link.
        """

    @abstractmethod
    def entries(self, path: str) -> Mapping[str, Node]:
        """What is in a directory, by name, without `.` and `..`; nothing where there is none."""

    @abstractmethod
    def read(self, path: str, limit: int = TEXT_LIMIT) -> bytes:
        """A regular file's content.

        Args:
            path: In the guest; links are followed.
            limit: The most bytes it may have.

        Raises:
            NotFound: There is no regular file.
            UnsafeImage: It is larger.
        """

    @abstractmethod
    def apply(self, changes: Sequence[Change]) -> None:
        """Make changes, in order, and read them back.

        Raises:
            InvalidRequest: One cannot be made: a directory is in a file's place, the file
                system is full. What was made until then stays: work on a copy.
            HostFault: The file system is not consistent afterwards.
        """

    def close(self) -> None:  # noqa: B027 - most have nothing to end
        """End what reads; nothing can be asked afterwards."""

    def text(self, path: str) -> str | None:
        """A configuration file's text; None where there is no such file."""
        node = self.find(path)
        if node is None or not node.is_file:
            return None
        return self.read(path).decode("utf-8", "replace")

    def exists(self, path: str) -> bool:
        """Whether anything is at a path (a link that leads nowhere is not)."""
        return self.find(path) is not None

    def names(self, path: str, suffix: str = "") -> list[str]:
        """The names in a directory that end so, sorted."""
        return sorted(name for name in self.entries(path) if name.endswith(suffix))

    def walk(self, path: str) -> list[tuple[str, Node]]:
        """Everything below a directory, parents before children; links are not followed.

        Raises:
            UnsafeImage: It has more entries, or is deeper, than any honest tree.
        """
        found: list[tuple[str, Node]] = []
        todo = [(path.rstrip("/"), 0)]
        while todo:
            folder, depth = todo.pop()
            for name, node in self.entries(folder or "/").items():
                found.append((f"{folder}/{name}", node))
                if node.is_directory:
                    todo.append((f"{folder}/{name}", depth + 1))
            if depth > _DEEPEST or len(found) > _MOST_ENTRIES:
                raise UnsafeImage(f"the guest's directory {path} has no end")
        return found

    def has(self, wanted: Put) -> bool:
        """Whether a file is there with this very content, mode and owner."""
        node = self.find(wanted.path, follow=False)
        return (
            node is not None
            and node.is_file
            and node.size == len(wanted.content)
            and (node.permissions, node.uid, node.gid) == (wanted.mode, wanted.uid, wanted.gid)
            and self.read(wanted.path, limit=node.size) == wanted.content
        )

    def require_no_directory(self, change: Put) -> None:
        """Make sure that no directory is in a file's place.

        Raises:
            InvalidRequest: There is one.
        """
        node = self.find(change.path, follow=False)
        if node is not None and node.is_directory:
            raise InvalidRequest(
                f"{change.path} cannot be written into the disk",
                hint="a directory is in its place",
            )

    def is_done(self, change: Change) -> bool:
        """Whether the guest is already as a change wants it."""
        if isinstance(change, Put):
            return self.has(change)
        return self.find(change.path, follow=False) is None


def require_done(
    access: Access, change: Change, later: Sequence[Change], said: Sequence[str] = ()
) -> None:
    """Read a change back, unless a later one was about the same place.

    Raises:
        InvalidRequest: It is not there.
    """
    place = PurePosixPath(change.path)
    if any(PurePosixPath(one.path).is_relative_to(place) for one in later):
        return
    if not access.is_done(change):
        raise InvalidRequest(
            f"{change.path} cannot be written into the disk",
            hint="is there a directory in its place, or no room left?",
            details=said,
        )


def missing(path: str) -> NotFound:
    """The error for a file that is not there."""
    return NotFound(f"the image has no file {path}", hint="`find` tells what is there")


def too_large(path: str, size: int, limit: int) -> UnsafeImage:
    """The error for a file that is larger than it may be."""
    return UnsafeImage(f"{path} in the image has {size} bytes, more than {limit}")

"""Access by debugfs: no file system driver of the host's kernel reads anything of the image.

The way for every image that one does not trust, as long as its file systems are ext ones. Links
and mounts are followed here, name by name, by the directories' own entries.
"""

from __future__ import annotations

import stat
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from blocks.errors import GuestFault, HostFault, InvalidRequest, Unsupported
from blocks.images.access.base import (
    TEXT_LIMIT,
    Access,
    Change,
    Method,
    Node,
    Put,
    Remove,
    missing,
    require_done,
    too_large,
)
from blocks.images.access.debugfs import ROOT_INODE, Inode, Volume, quoted
from blocks.images.access.mount_table import find_root, mount_table
from blocks.images.file_systems import EXT, FileSystem
from blocks.images.partitions import DiskMap, read_map

_MOST_LINKS = 40
_ETC_FILES = frozenset({"fstab", "passwd", "os-release"})


@dataclass(frozen=True)
class _Place:
    """Where a walk is: a canonical path, and what is there."""

    path: PurePosixPath
    inode: Inode


class DebugfsAccess(Access):
    """The ext file systems of a raw disk, by debugfs.

    Args:
        raw: The disk, or a view of it.
        scratch: An empty directory of the caller's.
        writable: Whether it will be changed.

    Raises:
        Unsupported: The root is not an ext file system.
    """

    method = Method.DEBUGFS

    def __init__(self, raw: Path, scratch: Path, *, writable: bool = False) -> None:
        self.map: DiskMap = read_map(raw)
        self._volumes = {
            held: Volume(raw, held, scratch, writable=writable)
            for held in self.map.file_systems
            if held.kind in EXT
        }
        try:
            self.mounts = self._find_mounts()
        except BaseException:
            self.close()
            raise

    def _find_mounts(self) -> Mapping[str, FileSystem]:
        root = find_root(self.map, self._has_etc)
        if root not in self._volumes:
            raise Unsupported(
                f"the image's root file system is {root.kind}: debugfs knows ext2, ext3 and ext4",
                hint="give the files by user data instead",
            )
        self.mounts = {"/": root}
        return mount_table(self.text("/etc/fstab"), root, self.map, EXT)

    def find(self, path: str, *, follow: bool = True) -> Node | None:
        """See `Access`."""
        place = self._walk(path, follow=follow)
        return place.inode.node if place else None

    def link(self, path: str) -> str:
        """See `Access`."""
        place = self._walk(path, follow=False)
        if place is None or not place.inode.node.is_link:
            raise missing(path)
        return place.inode.volume.link(place.inode)

    def entries(self, path: str) -> Mapping[str, Node]:
        """See `Access`."""
        place = self._walk(path, follow=True)
        if place is None or not place.inode.node.is_directory:
            return {}
        found = place.inode.volume.entries(place.inode.number)
        return {name: one.node for name, one in found.items() if name not in (".", "..")}

    def close(self) -> None:
        """End the processes that read."""
        for volume in self._volumes.values():
            volume.close()

    def read(self, path: str, limit: int = TEXT_LIMIT) -> bytes:
        """See `Access`."""
        place = self._walk(path, follow=True)
        if place is None or not place.inode.node.is_file:
            raise missing(path)
        size = place.inode.node.size
        if size > limit:
            raise too_large(path, size, limit)
        return place.inode.volume.content(place.inode.number, size)

    def apply(self, changes: Sequence[Change]) -> None:
        """See `Access`; only what is not yet so is changed."""
        touched: dict[FileSystem, Volume] = {}
        said: list[str] = []
        for change in changes:
            if self.is_done(change):
                continue
            parent = self._nearest(change.path)
            volume = parent.inode.volume
            if not volume.held.clean:
                raise GuestFault(
                    "the root file system was not unmounted: nothing can be injected",
                    hint="boot and shut down the guest once, or give the files by user data",
                )
            if isinstance(change, Remove):
                lines = self._remove(change, parent)
            else:
                # debugfs's `write` would put a second entry beside it.
                self.require_no_directory(change)
                (volume.scratch / "in").write_bytes(change.content)
                lines = _put(change, parent)
            said = volume.change(lines)
            touched[volume.held] = volume
        for volume in touched.values():
            volume.close()
        with ThreadPoolExecutor(1) as pool:
            # Both only read, each with a process of its own.
            checks = [pool.submit(volume.check) for volume in touched.values()]
            for number, change in enumerate(changes):
                require_done(self, change, changes[number + 1 :], said)
            for check in checks:
                check.result()

    def _has_etc(self, held: FileSystem) -> bool:
        """Whether a file system looks like a root."""
        volume = self._volumes.get(held)
        try:
            etc = volume.entries(ROOT_INODE).get("etc") if volume else None
            if volume is None or etc is None or not etc.node.is_directory:
                return False
            return not _ETC_FILES.isdisjoint(volume.entries(etc.number))
        except HostFault:
            return False

    def _root(self) -> _Place:
        return _Place(PurePosixPath("/"), self._volumes[self.mounts["/"]].root())

    def _walk(self, path: str, *, follow: bool) -> _Place | None:
        """Go to a path; None where it leads nowhere."""
        trail = [self._root()]
        todo = deque(_parts(path))
        links = 0
        while todo:
            name = todo.popleft()
            here = trail[-1]
            if name == "..":
                trail = trail[:-1] or trail
                continue
            if not here.inode.node.is_directory:
                return None
            child = here.inode.volume.entries(here.inode.number).get(name)
            if child is None:
                return None
            if child.node.is_link and (todo or follow):
                links += 1
                target = child.volume.link(child)
                if links > _MOST_LINKS or not target:
                    return None
                trail = trail[:1] if target.startswith("/") else trail
                todo.extendleft(reversed(_parts(target)))
                continue
            where = here.path / name
            mounted = self.mounts.get(str(where))
            if mounted is not None and child.node.is_directory:
                child = self._volumes[mounted].root()
            trail.append(_Place(where, child))
        return trail[-1]

    def _nearest(self, path: str) -> _Place:
        """The nearest directory above a path that is there.

        Raises:
            InvalidRequest: Something that is no directory is in the way.
        """
        above = PurePosixPath(path).parents
        for folder in above:
            place = self._walk(str(folder), follow=True)
            if place is not None and place.inode.node.is_directory:
                return replace(place, path=folder)
            if self._walk(str(folder), follow=False) is not None:
                break
        raise InvalidRequest(
            f"{path} cannot be written into the disk",
            hint=f"something that is no directory is in its way: {', '.join(map(str, above))}",
        )

    def _remove(self, change: Remove, parent: _Place) -> list[str]:
        """Remove one thing, children first; never across a mount."""
        path = PurePosixPath(change.path)
        node = self.find(change.path, follow=False)
        inner = self.walk(change.path) if node is not None and node.is_directory else []
        if any(PurePosixPath(point).is_relative_to(path) for point in self.mounts):
            raise InvalidRequest(f"{path} holds a mount point, and cannot be removed")
        lines = [f"cd <{parent.inode.number}>"]
        for name, one in reversed(inner):
            relative = PurePosixPath(name).relative_to(path.parent)
            lines.append(f"{'rmdir' if one.is_directory else 'rm'} {quoted(f'./{relative}')}")
        kind = "rmdir" if node is not None and node.is_directory else "rm"
        return [*lines, f"{kind} {quoted(f'./{path.name}')}"]


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _put(change: Put, parent: _Place) -> list[str]:
    """Make the directories that are not there, remove the old file, write, set mode and owner.

    Only `cd` and single names: debugfs's `write` takes a path for a name. A directory is made
    only where there is none: its `mkdir` of one that is there frees a block that is in use
    (e2fsprogs 1.47.0).
    """
    path = PurePosixPath(change.path)
    lines = [f"cd <{parent.inode.number}>"]
    for part in path.parent.relative_to(parent.path).parts:
        lines += [f"mkdir {quoted(part)}", f"cd {quoted(f'./{part}')}"]
    if change.private_folder:
        lines += _set_fields(".", stat.S_IFDIR | 0o700, change)
    lines += [f"rm {quoted(f'./{path.name}')}", f"write in {quoted(path.name)}"]
    return lines + _set_fields(f"./{path.name}", stat.S_IFREG | change.mode, change)


def _set_fields(path: str, mode: int, change: Put) -> list[str]:
    fields = (("mode", f"0{mode:o}"), ("uid", str(change.uid)), ("gid", str(change.gid)))
    return [f"set_inode_field {quoted(path)} {name} {value}" for name, value in fields]

"""Access by mounting: the host's kernel reads the image's file systems.

Quick, and knows every file system that the kernel knows: but a file system driver trusts what
it reads, so this is for images that one trusts. Mounts, loop devices and helpers live in
namespaces of a process of ours (see `holder`), and end with it. Files are reached through
descriptors of directories inside: no link of the guest leads to a file of the host.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from blocks.errors import HostFault, InvalidRequest, Unsupported
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
from blocks.images.access.holder import open_inside
from blocks.images.access.holding import Holder
from blocks.images.access.mount_table import find_root, mount_table
from blocks.images.file_systems import FileSystem
from blocks.images.partitions import DiskMap, read_map

_NOTHING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES)


class MountedAccess(Access):
    """The file systems of a raw disk, mounted in a namespace of their own.

    Args:
        holder: The process that mounts.
        raw: The disk, or a view of it, in the process's namespace.
        method: How that came about.
        writable: Whether changes will be made.
    """

    def __init__(self, holder: Holder, raw: Path, method: Method, *, writable: bool) -> None:
        self.method = method
        self._holder = holder
        self._writable = writable
        self.map: DiskMap = read_map(holder.see(raw))
        root = find_root(self.map, self._has_etc)
        self._mount("/", root)
        self.mounts: Mapping[str, FileSystem] = {"/": root}
        mounts = dict(mount_table(self.text("/etc/fstab"), root, self.map))
        for point, held in list(mounts.items()):
            node = self.find(point)
            if point == "/" or node is None or not node.is_directory:
                continue
            self._mount(point, held)
        self.mounts = mounts

    def _mount(self, point: str, held: FileSystem) -> None:
        size = next(one.size for one in self.map.partitions if one.holds == held)
        self._holder.do("mount", point=point, kind=held.kind, offset=held.offset, size=size)
        if point == "/":
            self._holder.enter()

    def _has_etc(self, held: FileSystem) -> bool:
        try:
            self._mount("/", held)
        except HostFault:
            return False
        found = any(self.exists(f"/etc/{name}") for name in ("fstab", "passwd", "os-release"))
        self.close()
        return found

    def close(self) -> None:
        """Unmount: then all is written."""
        self._holder.unmount()

    def find(self, path: str, *, follow: bool = True) -> Node | None:
        """See `Access`."""
        flags = os.O_PATH | (0 if follow else os.O_NOFOLLOW)
        try:
            with self._opened(path, flags) as handle:
                return _node(os.fstat(handle))
        except OSError as error:
            if error.errno in _NOTHING:
                return None
            raise

    def link(self, path: str) -> str:
        """See `Access`."""
        node = self.find(path, follow=False)
        if node is None or not node.is_link:
            raise missing(path)
        with self._opened(path, os.O_PATH | os.O_NOFOLLOW) as handle:
            return os.readlink("", dir_fd=handle)

    def entries(self, path: str) -> Mapping[str, Node]:
        """See `Access`."""
        node = self.find(path)
        if node is None or not node.is_directory:
            return {}
        with self._opened(path, os.O_RDONLY | os.O_DIRECTORY) as handle, os.scandir(handle) as all_:
            return {one.name: _node(one.stat(follow_symlinks=False)) for one in all_}

    def read(self, path: str, limit: int = TEXT_LIMIT) -> bytes:
        """See `Access`."""
        node = self.find(path)
        if node is None or not node.is_file:
            raise missing(path)
        if node.size > limit:
            raise too_large(path, node.size, limit)
        with self._opened(path, os.O_RDONLY | os.O_NONBLOCK) as handle:
            return _read_all(handle, node.size)

    def apply(self, changes: Sequence[Change]) -> None:
        """See `Access`."""
        for change in changes:
            if self.is_done(change):
                continue
            try:
                if isinstance(change, Put):
                    self._put(change)
                else:
                    self._remove(change)
            except OSError as error:
                raise InvalidRequest(
                    f"{change.path} cannot be written into the disk: {error.strerror}",
                    hint="is there a directory in its place, or no room left?",
                ) from error
        for number, change in enumerate(changes):
            require_done(self, change, changes[number + 1 :])

    @contextmanager
    def _opened(self, path: str, flags: int) -> Iterator[int]:
        handle = open_inside(self._holder.root, path, flags)
        try:
            yield handle
        finally:
            os.close(handle)

    def _put(self, change: Put) -> None:
        self.require_no_directory(change)
        path = PurePosixPath(change.path)
        for folder in reversed(path.parent.parents):
            self._have_folder(folder)
        self._have_folder(path.parent)
        part = f".{path.name[:200]}.part"
        with self._opened(str(path.parent), os.O_RDONLY | os.O_DIRECTORY) as folder_handle:
            if change.private_folder:
                os.fchown(folder_handle, change.uid, change.gid)
                os.fchmod(folder_handle, 0o700)
            with suppress(FileNotFoundError):
                os.unlink(part, dir_fd=folder_handle)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            handle = os.open(part, flags, 0o600, dir_fd=folder_handle)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(change.content)
                    os.fchown(file.fileno(), change.uid, change.gid)
                    os.fchmod(file.fileno(), change.mode)
                os.replace(part, path.name, src_dir_fd=folder_handle, dst_dir_fd=folder_handle)
            except OSError:
                with suppress(OSError):
                    os.unlink(part, dir_fd=folder_handle)
                raise

    def _have_folder(self, folder: PurePosixPath) -> None:
        if self.find(str(folder)) is None:
            with self._opened(str(folder.parent), os.O_RDONLY | os.O_DIRECTORY) as handle:
                os.mkdir(folder.name, 0o755, dir_fd=handle)

    def _remove(self, change: Remove) -> None:
        path = PurePosixPath(change.path)
        if any(PurePosixPath(point).is_relative_to(path) for point in self.mounts):
            raise InvalidRequest(f"{path} holds a mount point, and cannot be removed")
        node = self.find(change.path, follow=False)
        with self._opened(str(path.parent), os.O_RDONLY | os.O_DIRECTORY) as handle:
            if node is not None and node.is_directory:
                shutil.rmtree(path.name, dir_fd=handle)
            else:
                os.unlink(path.name, dir_fd=handle)


def _node(status: os.stat_result) -> Node:
    size = 0 if stat.S_ISDIR(status.st_mode) else status.st_size
    return Node(status.st_mode, status.st_uid, status.st_gid, size)


def _read_all(handle: int, size: int) -> bytes:
    parts = []
    while size and (part := os.read(handle, size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def require_kernel() -> None:
    """Make sure that this process can mount here.

    Raises:
        Unsupported: It is not root's, or the kernel has no loop devices.
    """
    if os.geteuid() != 0:
        raise Unsupported("only root can mount", hint="use the method debugfs")
    if not Path("/dev/loop-control").exists():
        raise Unsupported("this kernel has no loop devices", hint="use the method debugfs")

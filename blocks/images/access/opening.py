"""Opening an image's files: which way in, by what the host has and whether one trusts it.

| method     | the disk is seen as a file by       | its file systems are read by       | trust |
|------------|-------------------------------------|------------------------------------|-------|
| debugfs    | qemu-storage-daemon's FUSE export   | debugfs, a confined process        | none  |
| loop       | qemu-storage-daemon's FUSE export   | the host's kernel, in a namespace  | full  |
| nbd        | qemu-nbd, and the kernel or nbdfuse | the host's kernel, in a namespace  | full  |
| libguestfs | a small guest's disk                | that guest's kernel                | none  |

An image that is not trusted never meets a file system driver of the host's kernel.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from blocks.errors import Denied, Unsupported
from blocks.images.access.base import Access, Method
from blocks.images.access.holding import Holder
from blocks.images.access.nbd_server import nbd_devices
from blocks.images.access.with_kernel import MountedAccess, require_kernel
from blocks.images.access.with_libguestfs import GuestfishAccess, kvm_flags
from blocks.images.access.without_kernel import DebugfsAccess
from blocks.images.exports import Exports
from blocks.images.file_systems import EXT, ROOT_KINDS
from blocks.images.partitions import read_map
from blocks.resources.image import ImageFormat

#: Those that let the kernel read what is in the image.
_OF_THE_KERNEL = frozenset({Method.LOOP, Method.NBD})


@contextmanager
def open_access(
    disk: Path,
    disk_format: ImageFormat,
    exports: Exports,
    *,
    trusted: bool,
    writable: bool = False,
    method: Method | None = None,
) -> Iterator[Access]:
    """Open the files of a disk that no QEMU is using, as long as the block runs.

    Args:
        disk: The disk; one that `inspection` has passed.
        disk_format: Its format.
        exports: How it is seen as a raw file, and where the scratch space is.
        trusted: Whether all that ever wrote to it is trusted: it was built here by a recipe.
        writable: Whether it will be changed.
        method: The way in; none: debugfs where it can, else the kernel where it may, else
            libguestfs where it is installed.

    Raises:
        Denied: The kernel would read an image that is not trusted.
        Unsupported: Nothing here can read it; the message says what is in the way.
    """
    if method in _OF_THE_KERNEL and not trusted:
        raise Denied(
            f"the method {method} lets the host's kernel read the image, which is not trusted",
            hint="use the method debugfs",
        )
    opened = _WAYS[method] if method else _best
    with opened(disk, disk_format, exports, trusted, writable) as access:
        yield access


@contextmanager
def _best(
    disk: Path, disk_format: ImageFormat, exports: Exports, trusted: bool, writable: bool
) -> Iterator[Access]:
    """By debugfs where all that may hold the root is an ext file system; else as trust has it."""
    with exports.open(disk, disk_format, writable=False) as raw:
        kinds = {one.kind for one in read_map(raw).file_systems}
    way = _by_debugfs
    if kinds & (ROOT_KINDS - EXT):
        if trusted:
            way = _by_loop
        elif shutil.which("guestfish") is not None:
            way = _by_libguestfs
    with way(disk, disk_format, exports, trusted, writable) as access:
        yield access


@contextmanager
def _by_debugfs(
    disk: Path, disk_format: ImageFormat, exports: Exports, _trusted: bool, writable: bool
) -> Iterator[Access]:
    with exports.open(disk, disk_format, writable=writable) as raw:
        access = DebugfsAccess(raw, raw.parent, writable=writable)
        try:
            yield access
        finally:
            access.close()


@contextmanager
def _by_loop(
    disk: Path, disk_format: ImageFormat, exports: Exports, _trusted: bool, writable: bool
) -> Iterator[Access]:
    require_kernel()
    with exports.open(disk, disk_format, writable=writable) as raw:
        holder = Holder(raw.parent, raw, writable=writable)
        try:
            access = MountedAccess(holder, raw, Method.LOOP, writable=writable)
            yield access
            access.close()
        finally:
            holder.end()


@contextmanager
def _by_nbd(
    disk: Path, disk_format: ImageFormat, exports: Exports, _trusted: bool, writable: bool
) -> Iterator[Access]:
    require_kernel()
    wanted = {"qemu-nbd": "qemu-utils"}
    if not nbd_devices():
        wanted["nbdfuse"] = "libnbd-bin"
    for program, package in wanted.items():
        if shutil.which(program) is None:
            raise Unsupported(f"the program {program} is not installed", hint=f"install {package}")
    with exports.scratch(disk) as folder:
        more = {"disk": str(disk), "format": str(disk_format), "socket": str(folder / "socket")}
        holder = Holder(folder, folder / "raw", writable=writable, **more)
        try:
            raw = holder.do("nbd")
            access = MountedAccess(holder, raw, Method.NBD, writable=writable)
            yield access
            access.close()
            holder.do("end-nbd")
        finally:
            holder.end()


@contextmanager
def _by_libguestfs(
    disk: Path, disk_format: ImageFormat, exports: Exports, _trusted: bool, writable: bool
) -> Iterator[Access]:
    with exports.open(disk, disk_format, writable=False) as raw:
        disk_map = read_map(raw)
    with exports.scratch(disk) as folder:
        access = GuestfishAccess(
            disk, disk_format, disk_map, folder, writable=writable, emulated=not kvm_flags()
        )
        try:
            yield access
        finally:
            access.close()


_Way = Callable[[Path, ImageFormat, Exports, bool, bool], AbstractContextManager[Access]]
_WAYS: dict[Method, _Way] = {
    Method.DEBUGFS: _by_debugfs,
    Method.LOOP: _by_loop,
    Method.NBD: _by_nbd,
    Method.LIBGUESTFS: _by_libguestfs,
}

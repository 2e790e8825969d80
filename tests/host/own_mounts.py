"""A mount namespace whose /run/netns is empty: for hosts whose namespaces have the same names."""

from __future__ import annotations

import ctypes
import os

from blocks.fabric import run_in

_CLONE_FS, _CLONE_NEWNS = 0x200, 0x20000
_MS_REC, _MS_PRIVATE = 1 << 14, 1 << 18
_libc = ctypes.CDLL(None, use_errno=True)


class OwnMounts:
    """The mounts of one host; the mount namespace lives as long as this is not closed."""

    def __init__(self) -> None:
        self._handle, self._root = run_in(None, _make)

    def enter(self) -> None:
        """Put the calling thread, which is a throw-away one, into it."""
        # A thread that shares its root and working directory with others may not.
        _check(_libc.unshare(_CLONE_FS))
        _check(_libc.setns(self._handle, _CLONE_NEWNS))
        # Which put it at the namespace's own root, and ours may be another (chroot).
        os.fchdir(self._root)
        os.chroot(".")

    def close(self) -> None:
        """Let it go."""
        os.close(self._handle)
        os.close(self._root)


def _make() -> tuple[int, int]:
    _check(_libc.unshare(_CLONE_NEWNS))
    _check(_libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None))
    _check(_libc.mount(b"none", b"/run/netns", b"tmpfs", 0, None))
    handle = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    return handle, os.open("/", os.O_RDONLY | os.O_CLOEXEC)


def _check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

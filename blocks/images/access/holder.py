"""Holds mounts of a guest's file systems, in namespaces that end with it.

Started as a program of its own (see `with_kernel`) in a mount and a process namespace; it does
what it is told line by line (JSON on standard input, an answer for each), and ends when its
input does: then the kernel takes mounts, loop devices and processes away, whoever was killed.
Imports the standard library only.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

_OPENAT2 = 437
_NO_MAGIC_LINKS, _IN_ROOT = 0x02, 0x10


class Server(Protocol):
    """What shows a disk as a raw file."""

    raw: str

    def end(self) -> None:
        """End it; all is written then."""


class _How(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def open_inside(root: int, path: str, flags: int) -> int:
    """Open a path with a directory for its root: no link leads out of it (openat2(2)).

    Args:
        root: The directory, open.
        path: Absolute or not: it begins at the root.
        flags: As for open(2).

    Returns:
        The open file.

    Raises:
        OSError: As open(2) does.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    how = _How(flags | os.O_CLOEXEC, 0, _NO_MAGIC_LINKS | _IN_ROOT)
    handle: int = libc.syscall(
        _OPENAT2, root, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how)
    )
    if handle < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), path)
    return handle


def _options(order: dict[str, Any], *, writable: bool) -> str:
    words = ["loop", f"offset={order['offset']}", f"sizelimit={order['size']}"]
    words += ["nosuid", "nodev", "noexec", "rw" if writable else "ro"]
    if not writable:
        # A journal that is not empty is for the guest itself to replay.
        replay = {"ext3": "noload", "ext4": "noload", "xfs": "norecovery"}.get(order["kind"])
        words += [replay] if replay else []
    if order["kind"] == "xfs":
        words.append("nouuid")
    return ",".join(words)


def _mount(spec: dict[str, Any], order: dict[str, Any]) -> None:
    """Mount a file system at a path inside the tree."""
    root = os.open(spec["tree"], os.O_PATH | os.O_DIRECTORY)
    point = open_inside(root, order["point"], os.O_PATH | os.O_DIRECTORY)
    words = ["mount", "-t", order["kind"], "-o", _options(order, writable=spec["writable"])]
    words += [spec["raw"], f"/proc/self/fd/{point}"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, pass_fds=(point,))
    os.close(point)
    os.close(root)
    if done.returncode != 0:
        raise OSError(errno.EINVAL, " ".join(done.stderr.split()) or "mount failed")


def _unmount(spec: dict[str, Any]) -> None:
    """Unmount all, the inner ones first; only then all is written."""
    with open("/proc/self/mounts", encoding="utf-8") as file:  # noqa: PTH123 - no pathlib here
        points = [line.split()[1] for line in file]
    below = [one for one in points if one == spec["tree"] or one.startswith(f"{spec['tree']}/")]
    for point in reversed(below):
        path = point.encode().decode("unicode_escape").encode("latin-1")
        subprocess.run([b"umount", path], check=True, capture_output=True)


def main(spec: dict[str, Any], serve: Callable[[dict[str, Any]], Server]) -> None:
    """Do what is asked until the input ends.

    Args:
        spec: `raw` (the file to mount; what an NBD server shows comes in its place), `tree`
            (where), `writable`; for NBD also `disk`, `format` and `socket`.
        serve: What shows a disk by NBD.
    """
    servers: list[Server] = []

    def begin(_order: dict[str, Any]) -> None:
        servers.append(serve(spec))
        spec["raw"] = servers[0].raw

    orders: dict[str, Callable[[dict[str, Any]], None]] = {
        "nbd": begin,
        "mount": lambda order: _mount(spec, order),
        "unmount": lambda _order: _unmount(spec),
        "end-nbd": lambda _order: servers.pop().end(),
    }
    for line in sys.stdin:
        order = json.loads(line)
        try:
            orders[order["do"]](order)
        except (OSError, subprocess.SubprocessError) as error:
            said = getattr(error, "strerror", None) or str(error)
            answer = {"error": said, "errno": getattr(error, "errno", None)}
        else:
            answer = {"raw": spec["raw"]}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    if servers:
        # Else the kernel unmounts when the server is gone, and tells of a disk that fails.
        with suppress(OSError, subprocess.SubprocessError):
            _unmount(spec)
            servers.pop().end()

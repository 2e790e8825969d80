"""Holds mounts of a guest's file systems, in namespaces that end with it.

Started as a program of its own (`python -I -S holder.py SPEC`) in a mount and a process
namespace; it does what it is told line by line (JSON on standard input, an answer for each),
and ends when its input does: then the kernel takes mounts, loop devices and processes away,
whoever was killed. Imports the standard library only.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

_OPENAT2 = 437
_NO_MAGIC_LINKS, _IN_ROOT = 0x02, 0x10
_READY_TIMEOUT_S = 30.0
_POLL_S = 0.005


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


def _serve_nbd(spec: dict[str, Any]) -> None:
    """Show the disk as the raw file: qemu-nbd serves it, nbdfuse makes a file of it.

    Both are in mount namespaces of their own, without the guest's file systems: a killed nbdfuse
    that was the last one in ours would have to unmount them before the kernel closes its side of
    FUSE, so it would wait for itself for ever, and with it whoever looks at loop devices.
    """
    socket = spec["socket"]
    folder = os.path.dirname(spec["raw"])  # noqa: PTH120
    # What nbdfuse mounts there is seen here, and what is unmounted here is unmounted there.
    subprocess.run(["mount", "--bind", "--make-shared", folder, folder], check=True)
    apart = ["unshare", "--mount", "--propagation", "unchanged", "--"]
    words = [*apart, "qemu-nbd", "--persistent", "--socket", socket, "--format", spec["format"]]
    words += [] if spec["writable"] else ["--read-only"]
    server = subprocess.Popen([*words, spec["disk"]], stdin=subprocess.DEVNULL)
    _wait_for(socket, server)
    words = [*apart, "nbdfuse", *([] if spec["writable"] else ["--readonly"])]
    client = subprocess.Popen([*words, spec["raw"], "--unix", socket], stdin=subprocess.DEVNULL)
    _wait_for(spec["raw"], client)
    spec["programs"] = [client, server]


def _wait_for(path: str, program: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while not os.path.exists(path):  # noqa: PTH110
        if program.poll() is not None:
            raise OSError(errno.EIO, f"the server of {path} ended with {program.returncode}")
        if time.monotonic() > deadline:
            raise OSError(errno.ETIMEDOUT, f"{path} is not there")
        time.sleep(_POLL_S)


def _end_nbd(spec: dict[str, Any]) -> None:
    """End client and server, in this order: what the client still has is written."""
    subprocess.run(["fusermount3", "-u", os.path.dirname(spec["raw"])], check=True)  # noqa: PTH120
    client, server = spec.pop("programs")
    client.wait(_READY_TIMEOUT_S)
    server.terminate()
    server.wait(_READY_TIMEOUT_S)


def main(spec: dict[str, Any]) -> None:
    """Do what is asked until the input ends.

    Args:
        spec: `raw` (the file to mount), `tree` (where), `writable`; for NBD also `disk`,
            `format` and `socket`.
    """
    orders: dict[str, Callable[[dict[str, Any]], None]] = {
        "nbd": lambda _order: _serve_nbd(spec),
        "mount": lambda order: _mount(spec, order),
        "unmount": lambda _order: _unmount(spec),
        "end-nbd": lambda _order: _end_nbd(spec),
    }
    for line in sys.stdin:
        order = json.loads(line)
        try:
            orders[order["do"]](order)
        except (OSError, subprocess.SubprocessError) as error:
            said = getattr(error, "strerror", None) or str(error)
            answer = {"error": said}
        else:
            answer = {}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

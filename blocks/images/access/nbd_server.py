"""A disk shown as a raw file by NBD: qemu-nbd serves it; the kernel, or nbdfuse, is its client.

For the process that holds the mounts (see `holder`), in whose namespaces all of it ends.
Imports the standard library only.

What a killed qemu-nbd leaves does not wait for it: its end closes the socket, so the kernel
answers each request for the device with an error, and the file system on it can be unmounted.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import shutil
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_READY_TIMEOUT_S = _END_TIMEOUT_S = 30.0
_POLL_S = 0.005
_LONGEST_MESSAGE = 500
_APART = ("unshare", "--mount", "--propagation", "unchanged", "--")
_PR_SET_IO_FLUSHER = 57
_NBD_SET_TIMEOUT = 0xAB09
#: After that a server that hangs counts as dead: long, as a slow disk may need its time.
_ANSWER_TIMEOUT_S = 300
#: What qemu-nbd says when the device is its own, and when somebody was quicker.
_CONNECTED, _TAKEN = "is now connected", "Failed to set NBD socket"


class _NotThisOne(Exception):
    """A device cannot be had; another may do."""


def nbd_devices() -> list[str]:
    """The kernel's NBD devices that this host has nodes for (`nbd0`, ...).

    Their module is loaded for it, where there is one.
    """
    if not Path("/sys/module/nbd").exists() and shutil.which("modprobe"):
        subprocess.run(["modprobe", "-q", "nbd"], capture_output=True, check=False)
    names = [path.name for path in Path("/sys/block").glob("nbd*")]
    found = [name for name in names if re.fullmatch(r"nbd\d+", name) and _has_node(name)]
    return sorted(found, key=lambda name: int(name[3:]))


def _has_node(name: str) -> bool:
    """A container may have the kernel's device, and nothing in /dev to reach it by."""
    try:
        status = Path(f"/dev/{name}").stat()
    except FileNotFoundError:
        return False
    number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    return stat.S_ISBLK(status.st_mode) and _told_of(name, "dev") == number


def _told_of(name: str, attribute: str) -> str:
    """What the kernel tells of a device; nothing where it does not tell."""
    try:
        return Path(f"/sys/block/{name}/{attribute}").read_text().strip()
    except OSError:
        return ""


def _in_use(name: str) -> bool:
    """Whether a device has a server, or is still held open by somebody since it had one."""
    return _told_of(name, "pid") != ""


class _Server:
    """qemu-nbd, in the foreground: so it ends with us, whoever is killed."""

    def __init__(self, spec: dict[str, Any], *words: str) -> None:
        self._said = os.memfd_create("said", os.MFD_CLOEXEC)
        common = ["--socket", spec["socket"], "--format", spec["format"]]
        common += [] if spec["writable"] else ["--read-only"]
        # Memory that it needs must not be gained by writing to the device that it serves: that
        # would wait for itself (prctl(2)). Where we may not ask for that, it goes without.
        prctl = ctypes.CDLL(None).prctl
        prctl(_PR_SET_IO_FLUSHER, 1, 0, 0, 0)
        try:
            self._program = subprocess.Popen(
                [*_APART, "qemu-nbd", *words, *common, spec["disk"]],
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=self._said,
            )
        finally:
            prctl(_PR_SET_IO_FLUSHER, 0, 0, 0, 0)

    def said(self) -> str:
        """The end of what it wrote, as one line."""
        text = os.pread(self._said, 1 << 16, 0).decode(errors="replace")
        return " ".join(text.split())[-_LONGEST_MESSAGE:]

    def wait_for(self, ready: Callable[[], bool]) -> None:
        """Wait until it serves.

        Raises:
            OSError: It ended instead, or takes too long; then it is ended.
        """
        try:
            _wait_until(ready, "qemu-nbd", self._program)
        except OSError as error:
            self._program.kill()
            self._program.wait()
            raise OSError(error.errno, f"{error.strerror}: {self.said()}") from error

    def end(self) -> None:
        """End it: then all that it was given is in the disk.

        Raises:
            OSError: It had ended before, or failed.
        """
        early = self._program.poll() is not None
        self._program.terminate()
        try:
            code = self._program.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._program.kill()
            code = self._program.wait()
        if early or code != 0:
            raise OSError(errno.EIO, f"qemu-nbd ended with {code} ({self.said()})")


class _Device:
    """The disk as a device of the kernel's own NBD client."""

    def __init__(self, spec: dict[str, Any], name: str) -> None:
        self._name = name
        self.raw = f"/dev/{name}"
        if _in_use(name):
            raise _NotThisOne("all NBD devices are in use")
        try:
            self._handle = os.open(self.raw, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise _NotThisOne(f"{self.raw}: {error.strerror}") from error
        try:
            self._connect(spec)
        except BaseException:
            os.close(self._handle)
            raise

    def _connect(self, spec: dict[str, Any]) -> None:
        try:
            # Nobody of ours takes it meanwhile; and udev looks for no file systems on it.
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _NotThisOne("all NBD devices are in use") from error
        # Were it not verbose, it would go into the background.
        self._server = _Server(spec, "--verbose", "--connect", self.raw)
        try:
            self._server.wait_for(self._is_ready)
        except OSError as error:
            if _TAKEN in str(error):
                raise _NotThisOne("all NBD devices are in use") from error
            raise
        fcntl.ioctl(self._handle, _NBD_SET_TIMEOUT, _ANSWER_TIMEOUT_S)

    def _is_ready(self) -> bool:
        # Only its own word tells that the device is not another's since we looked.
        mine = _CONNECTED in self._server.said()
        return mine and _in_use(self._name) and _told_of(self._name, "size") not in ("", "0")

    def end(self) -> None:
        """Have all written, end the server, and wait until the device is free.

        Raises:
            OSError: Not all could be written, or somebody else holds the device.
        """
        try:
            os.fsync(self._handle)
        finally:
            os.close(self._handle)
            self._server.end()
        _wait_until(lambda: not _in_use(self._name), f"letting {self.raw} go")


class _FuseFile:
    """The disk as a file of nbdfuse's, for kernels without NBD.

    nbdfuse and qemu-nbd are in mount namespaces of their own, without the guest's file systems:
    a killed nbdfuse that was the last one in ours would have to unmount them before the kernel
    closes its side of FUSE, so it would wait for itself for ever, and with it whoever looks at
    loop devices.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        socket = Path(spec["socket"])
        self._folder = socket.with_name("nbd")
        self._folder.mkdir()
        self.raw = str(self._folder / "raw")
        # What nbdfuse mounts there is seen here, and what is unmounted here is unmounted there.
        bind = ["mount", "--bind", "--make-shared"]
        subprocess.run([*bind, self._folder, self._folder], check=True)
        self._server = _Server(spec, "--persistent")
        self._server.wait_for(socket.exists)
        words = [*_APART, "nbdfuse", *([] if spec["writable"] else ["--readonly"])]
        words += [self.raw, "--unix", str(socket)]
        self._client = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        _wait_until(Path(self.raw).exists, "nbdfuse", self._client)

    def end(self) -> None:
        """End client and server, in this order: what the client still has is written."""
        subprocess.run(["fusermount3", "-u", self._folder], check=True)
        self._client.wait(_END_TIMEOUT_S)
        self._server.end()


def _wait_until(
    ready: Callable[[], bool], what: str, program: subprocess.Popen[bytes] | None = None
) -> None:
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while not ready():
        if program is not None and program.poll() is not None:
            raise OSError(errno.EIO, f"{what} ended with {program.returncode}")
        if time.monotonic() > deadline:
            raise OSError(errno.ETIMEDOUT, f"{what} takes more than {_READY_TIMEOUT_S:g} s")
        time.sleep(_POLL_S)


def serve(spec: dict[str, Any]) -> _Device | _FuseFile:
    """Show a disk by the first of the kernel's devices that can be had, else by nbdfuse.

    Args:
        spec: `disk`, `format`, `writable`, and `socket`, in a directory of the caller's.

    Returns:
        What has the raw file's path (`raw`), and ends it (`end`).

    Raises:
        OSError: qemu-nbd cannot serve the disk, or nothing here can show it.
    """
    refused = "this kernel has no NBD devices"
    for name in nbd_devices():
        try:
            return _Device(spec, name)
        except _NotThisOne as why:
            refused = str(why)
    if shutil.which("nbdfuse"):
        return _FuseFile(spec)
    raise OSError(errno.EBUSY, f"{refused}, and nbdfuse is not installed")

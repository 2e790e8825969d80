"""A qcow2 seen as a raw file: a FUSE export by qemu-storage-daemon, without kernel mounts.

The daemon is our child and told to end when we do (PR_SET_PDEATHSIG), so that a killed
process leaves none behind, as a rule. What is left all the same is found by the path of its
mount point, which lies in our directory, and ended before the next export of that disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from blocks.commands import run
from blocks.errors import HostFault, Transient, Unsupported
from blocks.images.locks import locked
from blocks.resources.image import ImageFormat

_READY_TIMEOUT_S = 30.0
_END_TIMEOUT_S = 60.0
_POLL_S = 0.005


@dataclass(frozen=True)
class Export:
    """An export that is there.

    Attributes:
        folder: Its directory, with the mount point `raw`.
        disk: The disk that it shows.
        pid: The daemon's process, where it runs.
        mounted: Whether the mount point is mounted.
    """

    folder: Path
    disk: Path | None
    pid: int | None
    mounted: bool


class Exports:
    """The exports of an image store.

    Args:
        directory: Where each export has a directory.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @contextmanager
    def open(
        self,
        disk: Path,
        disk_format: ImageFormat | str,
        *,
        writable: bool = True,
        window: tuple[int, int] | None = None,
    ) -> Iterator[Path]:
        """Show a disk as a raw file, as long as the block runs.

        When the block is left, all that was written is in the disk, and nobody has it open.

        Args:
            disk: The disk; no QEMU may be using it.
            disk_format: Its format.
            writable: Whether the raw file can be written to.
            window: Only these bytes of it, such as a partition: where they begin, how many.

        Yields:
            The raw file. Its directory is the caller's scratch space.

        Raises:
            Unsupported: This host has no FUSE, or no qemu-storage-daemon.
            HostFault: The daemon did not start.
        """
        with self.scratch(disk) as folder:
            raw = folder / "raw"
            raw.touch()
            daemon = _start(
                disk, str(disk_format), raw, folder / "pid", writable=writable, window=window
            )
            try:
                _wait_until_ready(daemon, folder / "pid")
            except BaseException:
                _kill(daemon)
                raise
            try:
                yield raw
            finally:
                _stop(daemon)

    @contextmanager
    def scratch(self, disk: Path) -> Iterator[Path]:
        """The directory of a disk's export, for one at a time; gone when the block is left."""
        folder = self._folder(disk)
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(folder.with_suffix(".lock")):
            end(self._look(folder))
            folder.mkdir(mode=0o700)
            (folder / "disk").write_text(str(disk))
            try:
                yield folder
            finally:
                end(self._look(folder))

    def release(self, disk: Path) -> None:
        """End what a killed process left of an export of this disk; none is fine."""
        folder = self._folder(disk)
        if folder.exists():
            with locked(folder.with_suffix(".lock")):
                end(self._look(folder))

    def all(self) -> list[Export]:
        """All exports that are there, by their directories."""
        if not self._directory.is_dir():
            return []
        folders = [path for path in self._directory.iterdir() if path.is_dir()]
        return [self._look(folder) for folder in sorted(folders)]

    def _folder(self, disk: Path) -> Path:
        return self._directory / hashlib.sha256(os.fsencode(disk.absolute())).hexdigest()[:16]

    def _look(self, folder: Path) -> Export:
        note = folder / "disk"
        raw = folder / "raw"
        return Export(
            folder=folder,
            disk=Path(note.read_text()) if note.is_file() else None,
            pid=_daemon_of(raw),
            mounted=str(raw) in mount_points(),
        )


def end(export: Export) -> None:
    """End an export: the daemon (by its process id), the mount, the directory."""
    if export.pid is not None:
        _end_process(export.pid)
    raw = export.folder / "raw"
    if str(raw) in mount_points():
        run("umount", "--lazy", raw)
    if export.folder.exists():
        shutil.rmtree(export.folder)


def mount_points() -> list[str]:
    """All mount points of this process's namespace (proc(5), mountinfo)."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [_unescaped(line.split()[4]) for line in lines]


def _unescaped(path: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)


def _start(
    disk: Path,
    disk_format: str,
    raw: Path,
    pid_file: Path,
    *,
    writable: bool,
    window: tuple[int, int] | None,
) -> subprocess.Popen[bytes]:
    if not Path("/dev/fuse").exists():
        raise Unsupported("this kernel has no FUSE (/dev/fuse)", hint="give files by user data")
    only = {"read-only": not writable}
    file = {"driver": "file", "node-name": "file", "filename": str(disk), **only}
    node = {"driver": disk_format, "node-name": "disk", "file": "file", **only}
    nodes = [file, node]
    if window is not None:
        place = {"offset": window[0], "size": window[1]}
        nodes.append({"driver": "raw", "node-name": "window", "file": "disk", **place, **only})
    export = {
        "type": "fuse",
        "id": "export",
        "node-name": nodes[-1]["node-name"],
        "mountpoint": str(raw),
        "writable": writable,
        "growable": False,
    }
    words = ["setpriv", "--pdeathsig", "TERM", "--", "qemu-storage-daemon"]
    words += [word for one in nodes for word in ("--blockdev", json.dumps(one))]
    words += ["--export", json.dumps(export), "--pidfile", str(pid_file)]
    try:
        return subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
    except FileNotFoundError as error:
        raise Unsupported("setpriv is not installed", hint="install util-linux") from error


def _wait_until_ready(daemon: subprocess.Popen[bytes], pid_file: Path) -> None:
    """The daemon writes its pid file when all its exports are there."""
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while not (pid_file.is_file() and pid_file.stat().st_size):
        if daemon.poll() is not None:
            said = daemon.stderr.read().decode(errors="replace").strip() if daemon.stderr else ""
            raise HostFault(f"qemu-storage-daemon ended with {daemon.returncode}: {said[-500:]}")
        if time.monotonic() > deadline:
            raise Transient(f"qemu-storage-daemon was not ready within {_READY_TIMEOUT_S:g} s")
        time.sleep(_POLL_S)


def _stop(daemon: subprocess.Popen[bytes]) -> None:
    """End the daemon and wait: only then all is written and the disk's lock is free."""
    daemon.terminate()
    try:
        code = daemon.wait(_END_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        daemon.kill()
        daemon.wait()
        raise Transient("qemu-storage-daemon did not end, and was killed") from error
    finally:
        if daemon.stderr:
            daemon.stderr.close()
    if code not in (0, -signal.SIGTERM):
        raise HostFault(f"qemu-storage-daemon ended with {code}")


def _kill(daemon: subprocess.Popen[bytes]) -> None:
    """End a daemon that has shown nothing yet."""
    daemon.kill()
    daemon.wait()
    if daemon.stderr:
        daemon.stderr.close()


def _daemon_of(raw: Path) -> int | None:
    """The process that serves this very mount point, by its command line."""
    wanted = json.dumps(str(raw)).encode()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if b"qemu-storage-daemon" in words[0] and any(wanted in word for word in words):
            return int(path.parent.name)
    return None


def _end_process(pid: int) -> None:
    """SIGTERM, and SIGKILL where that does not help; returns when it is gone."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            signal.pidfd_send_signal(handle, number)
            if select.select([handle], [], [], _END_TIMEOUT_S)[0]:
                return
        raise HostFault(f"the process {pid} does not end")
    except ProcessLookupError:
        return
    finally:
        os.close(handle)

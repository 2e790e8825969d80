"""NBD where the kernel has it: only run by `test_stock_kernel`, under such a kernel."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from blocks.errors import HostFault
from blocks.images.access.base import Access, Method, Put
from blocks.images.access.nbd_server import nbd_devices
from blocks.images.access.opening import open_access
from blocks.images.exports import Exports
from tests.host.test_images_access import KILLED, disk, exports, format_of, seen
from tests.image_maker import run

__all__ = ["disk", "exports"]

_SET_SOCK, _SET_TIMEOUT = 0xAB00, 0xAB09
_PATIENCE_S = 120
#: The slow ones; and qemu-nbd locks no raw disk against another qemu-nbd.
_ONE_FORMAT = pytest.mark.parametrize("disk", ["qcow2"], indirect=True)


def _used() -> list[str]:
    return [name for name in nbd_devices() if Path(f"/sys/block/{name}/pid").exists()]


def _programs(name: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(FileNotFoundError, ProcessLookupError):
            if path.read_bytes().split(b"\0")[0] == name.encode():
                found.append(int(path.parent.name))
    return found


def _finishes(*words: str | Path) -> None:
    """What waits for a disk of which nothing comes any more would never end."""
    subprocess.run(words, check=True, timeout=_PATIENCE_S)


def _loops() -> list[str]:
    return [path.read_text().strip() for path in Path("/sys/block").glob("loop*/loop/backing_file")]


@contextmanager
def _opened(disk: Path, exports: Exports, *, writable: bool = True) -> Iterator[Access]:
    with open_access(
        disk, format_of(disk), exports, trusted=True, writable=writable, method=Method.NBD
    ) as guest:
        yield guest


@contextmanager
def _served_by_others(tmp_path: Path, device: str) -> Iterator[int]:
    """A device that somebody else uses."""
    other = tmp_path / "other.raw"
    other.write_bytes(bytes(1 << 20))
    words = ["qemu-nbd", "--verbose", "--format=raw", f"--connect={device}", str(other)]
    with subprocess.Popen(words) as server:
        pid = Path("/sys/block") / Path(device).name / "pid"
        _wait_until(pid.exists)
        before = pid.read_text()
        yield server.pid
        assert server.poll() is None
        assert pid.read_text() == before
        server.terminate()
    _wait_until(lambda: not pid.exists())


def _wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    assert len(nbd_devices()) > 1
    yield
    assert _used() == []
    assert _loops() == []
    assert _programs("qemu-nbd") == _programs("nbdfuse") == []
    _finishes("sync")


def test_the_device_is_the_kernels(disk: Path, exports: Exports) -> None:
    for writable in (False, True):
        with _opened(disk, exports, writable=writable) as guest:
            [name] = _used()
            assert {Path(path).name for path in _loops()} == {name}
            assert _programs("nbdfuse") == []
            block = Path("/sys/block") / name
            assert (block / "ro").read_text().strip() == str(int(not writable))
            assert int((block / "queue/io_timeout").read_text()) == 300_000
            size = guest.map.size
            assert int((block / "size").read_text()) * 512 == size > 1 << 20
    with _opened(disk, exports) as guest:
        guest.apply([Put("/etc/new", b"x" * 3_000_000)])
    assert len(seen(disk, "cat /etc/new")) == 3_000_000


def test_no_device_of_others_is_touched(disk: Path, exports: Exports, tmp_path: Path) -> None:
    with _served_by_others(tmp_path, "/dev/nbd0"):
        with _opened(disk, exports):
            assert _used() == ["nbd0", "nbd1"]
        assert _used() == ["nbd0"]
    # Taken already, but not to be seen as yet.
    ours, theirs = socket.socketpair()
    with Path("/dev/nbd0").open("rb") as device, ours, theirs:
        fcntl.ioctl(device, _SET_SOCK, ours.fileno())
        with _opened(disk, exports):
            assert _used() == ["nbd1"]


def test_where_all_are_taken_it_is_nbdfuse_or_nothing(
    disk: Path, exports: Exports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("modprobe", "-r", "nbd")
    run("modprobe", "nbd", "nbds_max=1")
    try:
        with _served_by_others(tmp_path, "/dev/nbd0"):
            with _opened(disk, exports) as guest:
                assert guest.text("/abs") == "ID=test\n"
                assert len(_programs("nbdfuse")) == 1
            without = tmp_path / "bin"
            without.mkdir()
            for folder in ("/usr/sbin", "/usr/bin"):
                for program in Path(folder).iterdir():
                    if program.name != "nbdfuse" and not (without / program.name).exists():
                        (without / program.name).symlink_to(program)
            monkeypatch.setenv("PATH", str(without))
            with (
                pytest.raises(HostFault, match="all NBD devices are in use"),
                _opened(disk, exports),
            ):
                pass
    finally:
        monkeypatch.undo()
        run("modprobe", "-r", "nbd")
        run("modprobe", "nbd")


@_ONE_FORMAT
def test_a_disk_in_use_is_told(disk: Path, exports: Exports, tmp_path: Path) -> None:
    words = ["qemu-nbd", "--format", format_of(disk), "--socket", str(tmp_path / "sock"), str(disk)]
    with subprocess.Popen(words) as server:
        _wait_until((tmp_path / "sock").exists)
        try:
            with pytest.raises(HostFault, match="lock"), _opened(disk, exports):
                pass
        finally:
            server.terminate()


@_ONE_FORMAT
def test_many_at_once_have_a_device_each(exports: Exports, disk: Path, tmp_path: Path) -> None:
    processes = []
    for number in range(3):
        folder = tmp_path / str(number)
        folder.mkdir()
        copy = folder / disk.name
        copy.write_bytes(disk.read_bytes())
        words = [sys.executable, "-c", KILLED, str(copy), "nbd"]
        processes.append(subprocess.Popen(words, stdout=subprocess.PIPE))
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(b"root:")
        assert len(_used()) == 3
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    _wait_until(lambda: not _used())
    _wait_until(lambda: not _programs("qemu-nbd"))


@_ONE_FORMAT
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_dead_server_does_not_hold_up_the_host(
    disk: Path, exports: Exports, number: signal.Signals
) -> None:
    """Of what was written to a mounted file system nothing can get to the disk any more."""
    with pytest.raises(HostFault, match=r"end-nbd|unmount"), _opened(disk, exports) as guest:
        guest.apply([Put("/etc/new", b"x" * 3_000_000), Put("/boot/new", b"x")])
        [server] = _programs("qemu-nbd")
        [name] = _used()
        if number is signal.SIGSTOP:
            # It will be noticed by the time that an answer may take: here not five minutes.
            with Path(f"/dev/{name}").open("rb") as device:
                fcntl.ioctl(device, _SET_TIMEOUT, 3)
        os.kill(server, number)
        _finishes("sync")
        _finishes("losetup", "--all")
    with _opened(disk, exports) as guest:
        guest.apply([Put("/etc/new", b"again")])
    assert seen(disk, "cat /etc/new") == "again"


@_ONE_FORMAT
def test_a_stopped_server_and_a_killed_owner_end(disk: Path, exports: Exports) -> None:
    words = [sys.executable, "-c", KILLED, str(disk), "nbd"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"root:")
        [server] = _programs("qemu-nbd")
        [name] = _used()
        with Path(f"/dev/{name}").open("rb") as device:
            fcntl.ioctl(device, _SET_TIMEOUT, 3)
        os.kill(server, signal.SIGSTOP)
        process.kill()
    _wait_until(lambda: not _used())
    _wait_until(lambda: not _programs("qemu-nbd"))
    with _opened(disk, exports) as guest:
        assert guest.exists("/etc/passwd")

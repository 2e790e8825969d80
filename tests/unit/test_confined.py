"""A confined program: no file but those that are named, no network, and an end to everything."""

from __future__ import annotations

import errno
import os
import socket
import sys
from pathlib import Path

import pytest

from blocks.commands import Confinement, Limits, run
from blocks.confined import landlock_version
from blocks.errors import HostFault, Unsupported

LIMITS = Limits(memory_bytes=1 << 30, cpu_s=10, file_bytes=1 << 20)
MIB = 1 << 20


def _has_landlock() -> bool:
    import ctypes

    return landlock_version(ctypes.CDLL(None, use_errno=True)) > 0


def _has_seccomp() -> bool:
    status = Path("/proc/self/status").read_text()
    return "Seccomp:" in status and os.uname().machine == "x86_64"


needs_seccomp = pytest.mark.skipif(not _has_seccomp(), reason="this kernel filters no calls")
needs_landlock = pytest.mark.skipif(not _has_landlock(), reason="this kernel has no Landlock")


@needs_landlock
def test_it_reads_what_is_named_and_nothing_else(tmp_path: Path) -> None:
    named, other = tmp_path / "named", tmp_path / "other"
    named.write_text("named")
    other.write_text("other")
    confined = Confinement(LIMITS, reads=(named,))
    assert run("cat", named, limits=confined).stdout == "named"
    for path in (other, "/etc/passwd", "/proc/self/environ"):
        with pytest.raises(HostFault, match="Permission denied"):
            run("cat", path, limits=confined)
    (tmp_path / "way").symlink_to(other)
    with pytest.raises(HostFault, match="Permission denied"):
        run("cat", tmp_path / "way", limits=confined)


@needs_landlock
def test_it_writes_what_is_named_and_makes_nothing(tmp_path: Path) -> None:
    named, other = tmp_path / "named", tmp_path / "other"
    named.touch()
    other.write_text("other")
    confined = Confinement(LIMITS, writes=(named,))
    run("dd", "if=/dev/zero", f"of={named}", "bs=1000", "count=1", limits=confined)
    assert named.stat().st_size == 1000
    for path in (other, tmp_path / "new"):
        with pytest.raises(HostFault, match="Permission denied"):
            run("dd", "if=/dev/zero", f"of={path}", "count=1", limits=confined)
    assert other.read_text() == "other"
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace is root's to make")
def test_it_has_no_network() -> None:
    script = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), 5)"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        words = ("/usr/bin/python3", "-I", "-S", "-c", script, port)
        run(*words, limits=LIMITS)
        with pytest.raises(HostFault, match="Permission denied"):
            run(*words, limits=Confinement(LIMITS))


@needs_seccomp
@pytest.mark.parametrize("family", ["AF_UNIX", "AF_INET", "AF_NETLINK", "AF_PACKET"])
def test_it_opens_no_socket(family: str, tmp_path: Path) -> None:
    """Not that of a service of this host either, which has a path and needs no network."""
    script = (
        "import socket, sys\n"
        "end = socket.socket(getattr(socket, sys.argv[1]), socket.SOCK_DGRAM)\n"
        "if end.family == socket.AF_UNIX: end.connect(sys.argv[2])\n"
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "service"))
        words = ("/usr/bin/python3", "-I", "-S", "-c", script, family, tmp_path / "service")
        if os.geteuid() == 0 or family != "AF_PACKET":
            run(*words, limits=LIMITS)
        with pytest.raises(HostFault, match="Permission denied"):
            run(*words, limits=Confinement(LIMITS))


@needs_seccomp
@pytest.mark.parametrize("number", [0x4000_0029, 425], ids=["x32", "io_uring"])
def test_there_is_no_way_round_to_a_socket(number: int) -> None:
    script = (
        "import ctypes, sys\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "room = ctypes.create_string_buffer(4096)\n"
        "said = libc.syscall(int(sys.argv[1]), 1, room if sys.argv[1] == '425' else 1, 0)\n"
        "print(said, ctypes.get_errno())\n"
    )
    words = ("/usr/bin/python3", "-I", "-S", "-c", script, str(number))
    assert run(*words, limits=Confinement(LIMITS)).stdout.split() == ["-1", str(errno.EACCES)]


def test_its_file_has_an_end(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(HostFault):
        run("dd", "if=/dev/zero", f"of={path}", "bs=64k", limits=Confinement(LIMITS, (), (path,)))
    assert path.stat().st_size == MIB


def test_its_time_and_its_memory_have_an_end() -> None:
    python = ("/usr/bin/python3", "-I", "-S", "-c")
    one_second = Confinement(Limits(memory_bytes=1 << 30, cpu_s=1))
    with pytest.raises(HostFault, match=r"ended with -(9|24)"):
        run(*python, "while True: pass", limits=one_second)
    with pytest.raises(HostFault, match="MemoryError"):
        run(*python, "bytes(2 << 30)", limits=Confinement(LIMITS))


def test_a_program_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises((HostFault, Unsupported), match="not installed"):
        run("no-such-program", limits=Confinement(LIMITS))
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(Unsupported):
        run("true", limits=Confinement(LIMITS))


@pytest.mark.parametrize("limits", [LIMITS, Confinement(LIMITS)])
def test_a_thread_costs_little_of_its_address_space(limits: Limits | Confinement) -> None:
    """QEMU starts up to 64 where a disk is slow: each must not reserve a heap of its own."""
    said = run(sys.executable, "-I", "-S", "-c", _THREADS, limits=limits)
    assert said.stdout.split() == ["40"]
    assert "MALLOC_ARENA_MAX" not in os.environ


_THREADS = """
import ctypes, threading
libc = ctypes.CDLL(None)
libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
wait, own = threading.Barrier(40), []
def hold():
    own.append(libc.malloc(100))
    wait.wait(60)
threads = [threading.Thread(target=hold) for _ in range(40)]
for each in threads: each.start()
for each in threads: each.join()
print(len(own))
"""

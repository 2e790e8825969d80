"""The ways into an image, each by the same tests; what they leave when they are killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.errors import Denied, FiftyError, InvalidRequest, UnsafeImage, Unsupported
from blocks.images.access.base import Method, Put, Remove
from blocks.images.access.nbd_server import nbd_devices
from blocks.images.access.opening import open_access
from blocks.images.exports import Exports
from blocks.images.file_systems import Kind
from blocks.resources.image import ImageFormat
from tests.image_maker import MIB, Link, Part, Tree, make_disk, run

pytestmark = pytest.mark.host

BOOT_UUID = "0b1d4a30-0000-4000-8000-00000000b007"
ROOT: Tree = {
    "etc/fstab": f"LABEL=root / ext4 defaults 0 1\nUUID={BOOT_UUID} /boot ext2 ro 0 2\n",
    "etc/passwd": "root:x:0:0::/root:/bin/sh\n",
    "usr/lib/os-release": "ID=test\n",
    "lib": Link("usr/lib"),
    "abs": Link("/usr/lib/os-release"),
    "out": Link("../../../../../../../../../../etc/hostname"),
    "far": Link("/proc/self/environ"),
    "loop": Link("loop"),
    "boot": None,
    "var/old/deep/file": "x",
}
BOOT: Tree = {"grub/grub.cfg": "linux /vmlinuz\n"}


@pytest.fixture(params=["qcow2", "raw"])
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    boot = Part(BOOT, size_mib=4, kind="ext2", uuid=BOOT_UUID)
    raw = make_disk(tmp_path / "made", [boot, Part(ROOT, label="root")])
    path = tmp_path / f"disk.{request.param}"
    run("qemu-img", "convert", "-f", "raw", "-O", str(request.param), raw, path)
    return path


@pytest.fixture
def exports(tmp_path: Path) -> Iterator[Exports]:
    exports = Exports(tmp_path / "exports")
    yield exports
    assert exports.all() == []


def format_of(disk: Path) -> ImageFormat:
    return ImageFormat(disk.suffix[1:])


def seen(disk: Path, command: str, offset: int = 5 * MIB) -> str:
    raw = disk.with_suffix(".seen")
    run("qemu-img", "convert", "-f", format_of(disk), "-O", "raw", disk, raw)
    run("e2fsck", "-fn", f"{raw}?offset={offset}")
    return run("debugfs", "-R", command, f"{raw}?offset={offset}")


METHODS = [
    Method.DEBUGFS,
    Method.LOOP,
    Method.NBD,
    pytest.param(
        Method.LIBGUESTFS,
        marks=pytest.mark.skipif(
            shutil.which("guestfish") is None, reason="guestfish is not installed"
        ),
    ),
]


@pytest.mark.parametrize("method", METHODS)
def test_every_way_in_reads_and_writes_the_same(
    disk: Path, exports: Exports, method: Method
) -> None:
    before = disk.read_bytes()
    with open_access(disk, format_of(disk), exports, trusted=True, method=method) as guest:
        assert guest.method is method
        assert sorted(guest.mounts) == ["/", "/boot"]
        assert guest.text("/lib/os-release") == guest.text("/abs") == "ID=test\n"
        assert guest.text("/boot/grub/grub.cfg") == "linux /vmlinuz\n"
        assert guest.link("/abs") == "/usr/lib/os-release"
        for path in ("/out", "/far", "/loop", "/nope", "/etc/passwd/x"):
            assert guest.find(path) is None, path
        assert guest.names("/var/old") == ["deep"]
        with pytest.raises(UnsafeImage):
            guest.read("/etc/passwd", limit=3)
    assert disk.read_bytes() == before
    with open_access(
        disk, format_of(disk), exports, trusted=True, writable=True, method=method
    ) as guest:
        guest.apply(
            [
                Put("/boot/grub/grub.cfg", b"new\n", 0o600),
                Put("/lib/a/b", b"deep", 0o751, uid=7, gid=8),
                Put("/abs", b"a file now"),
                Put("/root/.ssh/authorized_keys", b"key\n", 0o600, private_folder=True),
                Remove("/var/old"),
                Remove("/never"),
            ]
        )
        for path in ("/etc", "/etc/passwd/x", "/out/x"):
            with pytest.raises(InvalidRequest):
                guest.apply([Put(path, b"x")])
    assert seen(disk, "cat /grub/grub.cfg", MIB) == "new\n"
    assert seen(disk, "cat /usr/lib/a/b") == "deep"
    assert "Mode:  0751" in seen(disk, "stat /usr/lib/a/b")
    assert "User:     7   Group:     8" in seen(disk, "stat /usr/lib/a/b")
    assert "Type: regular" in seen(disk, "stat /abs")
    assert "Mode:  0700" in seen(disk, "stat /root/.ssh")
    assert seen(disk, "cat /usr/lib/os-release") == "ID=test\n"
    assert "old" not in seen(disk, "ls -p /var")


def test_the_kernel_reads_no_image_that_is_not_trusted(disk: Path, exports: Exports) -> None:
    for method in (Method.LOOP, Method.NBD):
        with (
            pytest.raises(Denied),
            open_access(disk, format_of(disk), exports, trusted=False, method=method),
        ):
            pass
    with open_access(disk, format_of(disk), exports, trusted=False) as guest:
        assert guest.method is Method.DEBUGFS
    run("qemu-io", "-f", format_of(disk), "-c", f"write -P 0 {5 * MIB} 64k",
        "-c", f"write -P 0 {MIB} 64k", disk)  # fmt: skip
    with (
        pytest.raises(FiftyError),
        open_access(disk, format_of(disk), exports, trusted=False),
    ):
        pass


def test_what_is_not_ext_is_read_as_trust_has_it(tmp_path: Path, exports: Exports) -> None:
    """btrfs: the host's kernel where it may, else libguestfs, else not at all."""
    tree: Tree = {**ROOT, "etc/fstab": "LABEL=root / btrfs defaults 0 0\n"}
    root = Part(tree, label="root", kind="btrfs", size_mib=128)
    disk = make_disk(tmp_path / "disk.raw", [root])
    with open_access(disk, ImageFormat.RAW, exports, trusted=True, writable=True) as guest:
        assert (guest.method, guest.mounts["/"].kind) == (Method.LOOP, Kind.BTRFS)
        assert guest.text("/abs") == "ID=test\n"
        guest.apply([Put("/etc/new", b"new\n")])
    untrusted = open_access(disk, ImageFormat.RAW, exports, trusted=False)
    if shutil.which("guestfish") is None:
        with pytest.raises(Unsupported), untrusted:
            pass
        return
    with untrusted as guest:
        assert guest.method is Method.LIBGUESTFS
        assert guest.text("/etc/new") == "new\n"


def test_an_error_inside_leaves_nothing(disk: Path, exports: Exports) -> None:
    for method in (Method.DEBUGFS, Method.LOOP, Method.NBD):
        # A file of the guest's that stays open keeps its file system and its loop device.
        before = _open_files()
        with (
            pytest.raises(RuntimeError),
            open_access(disk, format_of(disk), exports, trusted=True, writable=True, method=method),
        ):
            raise RuntimeError
        assert _open_files() == before
        assert _of_ours(disk.parent) == []


KILLED = """
import sys, time
from pathlib import Path
from blocks.images.access.opening import open_access
from blocks.images.access.base import Method
from blocks.images.exports import Exports
from blocks.images.file_systems import Kind
from blocks.resources.image import ImageFormat
disk = Path(sys.argv[1])
with open_access(disk, ImageFormat(disk.suffix[1:]), Exports(disk.parent / "exports"),
                 trusted=True, writable=True, method=Method(sys.argv[2])) as guest:
    print(guest.text("/etc/passwd"), flush=True)
    time.sleep(600)
"""


def _of_ours(folder: Path) -> list[str]:
    """Processes, mounts and loop devices that are about something in a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if os.fsencode(folder) in words and int(path.parent.name) != os.getpid():
            found.append(words.decode(errors="replace"))
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found += [line for line in mounts if str(folder) in line]
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        backing = path.read_text()
        found += [backing] if str(folder) in backing else []
    return found


def _open_files() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def _seen_by(program: str, folder: Path) -> list[str]:
    """The mounts that a program sees, which has to do with something in a folder."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            words = path.read_bytes().split(b"\0")
            if words[0] == program.encode() and os.fsencode(folder) in b"\0".join(words):
                return path.with_name("mounts").read_text().splitlines()
    pytest.fail(f"no {program}")


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_process_leaves_nothing_that_matters(
    disk: Path, exports: Exports, method: Method
) -> None:
    words = [sys.executable, "-c", KILLED, str(disk), method]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"root:")
        assert _of_ours(disk.parent)
        if method is Method.NBD:
            # A server that had to unmount what it serves would wait for itself for ever.
            server = "qemu-nbd" if nbd_devices() else "nbdfuse"
            assert [one for one in _seen_by(server, disk.parent) if "/tree" in one] == []
        process.send_signal(signal.SIGKILL)
    # The export's mount may stay, dead; the next one who comes ends it.
    deadline = time.monotonic() + 60
    while [one for one in _of_ours(disk.parent) if "exports/" not in one or "loop" in one]:
        assert time.monotonic() < deadline, _of_ours(disk.parent)
        time.sleep(0.05)
    with open_access(disk, format_of(disk), exports, trusted=True, method=method) as guest:
        assert guest.exists("/etc/passwd")
    assert _of_ours(disk.parent) == []

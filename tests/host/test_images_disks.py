"""Disks: overlay, copy, size, injection; looked at with qemu-img, debugfs and e2fsck."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import pwd
import signal
import stat
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks import changes
from blocks.errors import Conflict, FiftyError, GuestFault, InvalidRequest, NotFound, Unsupported
from blocks.images import ImageStore
from blocks.images.exports import mount_points
from blocks.images.files import part_of
from blocks.images.leftovers import BUILD, EXPORT, IMAGE, PART
from blocks.resources.image import ImageFormat
from blocks.resources.request import InjectedFile

pytestmark = pytest.mark.host

MIB = 1024 * 1024
OFFSET = MIB
OWNER = pwd.getpwnam("libvirt-qemu")


def run(*words: str | Path, ok: tuple[int, ...] = (0,)) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode in ok, (words, done.stdout, done.stderr)
    return done.stdout


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ImageStore]:
    store = ImageStore(tmp_path / "images")
    yield store
    for found in store.inventory():
        store.remove(found)


@pytest.fixture
def instance(tmp_path: Path) -> Path:
    directory = tmp_path / "instances" / "0b1d4a30-0000-4000-8000-000000000001"
    directory.mkdir(parents=True)
    directory.chmod(0o700)
    os.chown(directory, OWNER.pw_uid, OWNER.pw_gid)
    return directory


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A qcow2 with an MBR and an ext4 like a guest's."""
    directory = tmp_path_factory.mktemp("base")
    tree = directory / "tree"
    for folder in ("etc", "home/debian", "root", "a/dir", "usr/lib"):
        (tree / folder).mkdir(parents=True)
    os.chown(tree / "home/debian", 1000, 1000)
    (tree / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\ndebian:x:1000:1000::/home/debian:/bin/sh\n"
        "astray:x:1:1::../../etc:/bin/sh\n"
    )
    (tree / "etc/motd").write_text("old")
    (tree / "etc/shadow").write_text("secret")
    (tree / "lib").symlink_to("usr/lib")
    (tree / "etc/link").symlink_to("/etc/shadow")
    (tree / "out").symlink_to("../../../../../../../../../../" + str(directory))
    raw = directory / "disk.raw"
    raw.touch()
    os.truncate(raw, 32 * MIB)
    subprocess.run(
        ["sfdisk", "-q", raw], input="label: dos\nstart=2048, type=83\n", text=True, check=True
    )
    options = ("-q", "-t", "ext4", "-L", "root", "-E", f"offset={OFFSET}", "-d", tree)
    run("mke2fs", *options, raw, "31M")
    path = directory / "base.qcow2"
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path)
    return path


@pytest.fixture
def disk(store: ImageStore, base: Path, instance: Path) -> Path:
    path = instance / "disk"
    store.create_disk(base, ImageFormat.QCOW2, path)
    return path


def file(path: str, content: bytes = b"hello\n", mode: int = 0o644) -> InjectedFile:
    return InjectedFile(path=path, content_base64=base64.b64encode(content).decode(), mode=mode)


def raw_of(disk: Path) -> Path:
    raw = disk.parent.parent / "seen.raw"
    raw.unlink(missing_ok=True)
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", disk, raw)
    with raw.open("r+b") as whole:
        content = whole.read()
        whole.seek(0)
        whole.write(content[OFFSET:])
        whole.truncate()
    return raw


def in_guest(disk: Path, command: str) -> str:
    return run("debugfs", "-R", command, raw_of(disk))


def info(path: Path) -> dict[str, object]:
    seen: dict[str, object] = json.loads(run("qemu-img", "info", "-U", "--output=json", path))
    return seen


def test_overlay_is_based_on_its_base_with_the_format_named(disk: Path, base: Path) -> None:
    seen = info(disk)
    assert (seen["format"], seen["backing-filename"]) == ("qcow2", str(base))
    assert seen["backing-filename-format"] == "qcow2"
    status = disk.stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (OWNER.pw_uid, 0o600)


def test_create_twice_is_once(store: ImageStore, disk: Path, base: Path) -> None:
    before = disk.stat()
    with changes.collecting() as recorded:
        store.create_disk(base, ImageFormat.QCOW2, disk)
    assert recorded == []
    assert disk.stat().st_ino == before.st_ino


def test_create_after_a_kill_in_mid_write(store: ImageStore, base: Path, instance: Path) -> None:
    path = instance / "disk"
    part_of(path).write_bytes(b"half a disk")
    with changes.collecting() as recorded:
        store.create_disk(base, ImageFormat.QCOW2, path)
    assert recorded[0].command.startswith("qemu-img create")
    assert recorded[0].command.endswith(str(path))
    assert names(instance) == ["disk"]
    assert info(path)["backing-filename"] == str(base)


def test_a_disk_on_another_base_is_in_the_way(
    store: ImageStore, disk: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", other, "1M")
    with pytest.raises(Conflict):
        store.create_disk(other, ImageFormat.QCOW2, disk)


def test_copy_needs_no_base(store: ImageStore, base: Path, instance: Path) -> None:
    path = instance / "disk"
    for _ in range(2):
        store.create_disk(base, ImageFormat.QCOW2, path, lambda _percent: None)
        assert "backing-filename" not in info(path)
    run("qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", base, path)


def test_resize_grows_and_never_shrinks(store: ImageStore, disk: Path) -> None:
    with changes.collecting() as recorded:
        store.resize_disk(disk, 1024 * MIB)
        store.resize_disk(disk, 1024 * MIB)
    assert len(recorded) == 1
    assert info(disk)["virtual-size"] == 1024 * MIB
    with pytest.raises(InvalidRequest):
        store.resize_disk(disk, 512 * MIB)
    assert info(disk)["virtual-size"] == 1024 * MIB


AWKWARD = (
    "/etc/motd",
    "/new/deep/er/file",
    '/a b/with "quotes" and %s.txt',
    "/a/<2>",
    "/a/-rf",
    "/a/;!ls $HOME `id` \\n *",
    "/lib/through-a-link",
    "/a/" + "n" * 255,
    "/" + "/".join(["d" * 200] * 4) + "/file",
    "/a/grüße",
    "/etc/link",
)


def test_files_are_there_and_the_file_system_is_clean(store: ImageStore, disk: Path) -> None:
    files = [
        file(path, os.urandom(3000) + str(number).encode(), 0o600 + number)
        for number, path in enumerate(AWKWARD)
    ]
    store.resize_disk(disk, 64 * MIB)
    store.inject(disk, files)
    raw = raw_of(disk)
    for wanted in files:
        out = disk.parent.parent / "out"
        quoted = wanted.path.replace('"', '""')
        run("debugfs", "-R", f'dump -p "{quoted}" "{out}"', raw)
        assert out.read_bytes() == wanted.content, wanted.path
        assert (stat.S_IMODE(out.stat().st_mode), out.stat().st_uid) == (wanted.mode, 0)
        out.unlink()
    # A link in a file's place is replaced; what it pointed at is as it was.
    assert run("debugfs", "-R", "cat /etc/shadow", raw) == "secret"
    run("e2fsck", "-fn", raw)
    run("qemu-img", "check", "-f", "qcow2", disk)
    assert disk.stat().st_uid == OWNER.pw_uid
    assert store.inventory() == []


def test_inject_twice_is_once(store: ImageStore, disk: Path) -> None:
    keys = {"root": ["ssh-ed25519 AAAA one"]}
    with changes.collecting() as recorded:
        store.inject(disk, [file("/etc/x")], keys)
        inode = disk.stat().st_ino
        store.inject(disk, [file("/etc/x")], keys)
    assert [change.command.split()[0] for change in recorded] == ["debugfs", "debugfs"]
    assert disk.stat().st_ino == inode
    assert names(disk.parent) == ["disk"]


def test_a_link_out_of_the_guest_stays_in_it(store: ImageStore, disk: Path, base: Path) -> None:
    before = names(base.parent)
    with pytest.raises(FiftyError):
        store.inject(disk, [file("/out/file")])
    assert names(base.parent) == before
    assert store.inventory() == []


def test_keys_are_added_and_the_user_owns_them(store: ImageStore, disk: Path) -> None:
    one, two = "ssh-ed25519 AAAA one", "ssh-ed25519 BBBB two"
    path = "/home/debian/.ssh/authorized_keys"
    store.inject(disk, [], {"debian": [one]})
    store.inject(disk, [], {"debian": [two, one]})
    assert in_guest(disk, f"cat {path}") == f"{one}\n{two}\n"
    store.inject(disk, [], {"debian": [two]}, replace_keys=True)
    assert in_guest(disk, f"cat {path}") == f"{two}\n"
    for name, mode in ((path, "0600"), ("/home/debian/.ssh", "0700")):
        said = in_guest(disk, f"stat {name}")
        assert f"Mode:  {mode}" in said
        assert "User:  1000   Group:  1000" in said
    for user in ("nobody-here", "astray"):
        with pytest.raises(NotFound):
            store.inject(disk, [], {user: [one]})


@pytest.mark.parametrize("path", ["/a/dir", "/etc/motd/below"])
def test_what_cannot_be_written_leaves_the_disk_as_it_was(
    store: ImageStore, disk: Path, path: str
) -> None:
    before = hashlib.sha256(disk.read_bytes()).hexdigest()
    with pytest.raises(InvalidRequest):
        store.inject(disk, [file("/etc/fine"), file(path)])
    assert hashlib.sha256(disk.read_bytes()).hexdigest() == before
    assert names(disk.parent) == ["disk"]


def test_a_full_file_system_leaves_the_disk_as_it_was(store: ImageStore, disk: Path) -> None:
    before = hashlib.sha256(disk.read_bytes()).hexdigest()
    files = [file(f"/big{number}", os.urandom(MIB // 4)) for number in range(128)]
    with pytest.raises(InvalidRequest):
        store.inject(disk, files)
    assert hashlib.sha256(disk.read_bytes()).hexdigest() == before


def test_a_disk_in_use_is_refused(store: ImageStore, disk: Path, tmp_path: Path) -> None:
    block = f"driver=qcow2,node-name=d,file.driver=file,file.filename={disk}"
    socket = f"addr.type=unix,addr.path={tmp_path / 'nbd'}"
    export = ("--nbd-server", socket, "--export", "type=nbd,id=e,node-name=d,writable=on")
    pid_file = tmp_path / "pid"
    run("qemu-storage-daemon", "--daemonize", "--pidfile", pid_file, "--blockdev", block, *export)
    try:
        with pytest.raises(Conflict):
            store.inject(disk, [file("/etc/x")])
    finally:
        os.kill(int(pid_file.read_text()), signal.SIGTERM)


def patch_superblock(disk: Path, offset: int, content: bytes) -> None:
    hexes = " ".join(f"0x{byte:02x}" for byte in content)
    for number, byte in enumerate(hexes.split()):
        at = OFFSET + 1024 + offset + number
        run("qemu-io", "-f", "qcow2", "-c", f"write -P {byte} {at} 1", disk)


def test_a_journal_to_replay_is_refused(store: ImageStore, disk: Path) -> None:
    said = in_guest(disk, "show_super_stats -h")
    assert "needs_recovery" not in said
    raw = raw_of(disk).read_bytes()
    incompatible = int.from_bytes(raw[1024 + 96 : 1024 + 100], "little") | 4
    patch_superblock(disk, 96, incompatible.to_bytes(4, "little"))
    with pytest.raises(GuestFault):
        store.inject(disk, [file("/etc/x")])


def test_no_ext_file_system_is_unsupported(store: ImageStore, disk: Path) -> None:
    patch_superblock(disk, 56, b"\x00\x00")
    with pytest.raises(Unsupported):
        store.inject(disk, [file("/etc/x")])


def test_a_broken_file_system_ends_in_bounded_time(store: ImageStore, disk: Path) -> None:
    """Rubbish in the group descriptors and the root's inode: refused, nothing left."""
    run("qemu-io", "-f", "qcow2", "-c", f"write -P 0xa5 {OFFSET + 4096} 512k", disk)
    with pytest.raises(FiftyError):
        store.inject(disk, [file("/etc/x")])
    assert names(disk.parent) == ["disk"]
    assert store.inventory() == []


KILLED = """
import sys, time
from pathlib import Path
from blocks.images.exports import Exports
with Exports(Path(sys.argv[1])).open(Path(sys.argv[2]), "qcow2") as raw:
    print(raw, flush=True)
    time.sleep(600)
"""


def start_export(store_directory: Path, disk: Path) -> tuple[subprocess.Popen[str], Path]:
    words = [sys.executable, "-c", KILLED, str(store_directory / "exports"), str(disk)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    return process, Path(process.stdout.readline().strip())


def test_a_killed_process_leaves_no_export_that_matters(
    store: ImageStore, disk: Path, tmp_path: Path
) -> None:
    process, raw = start_export(tmp_path / "images", disk)
    assert str(raw) in mount_points()
    assert [(one.kind, one.owner) for one in store.inventory()] == [(EXPORT, disk.parent.name)]
    process.kill()
    process.wait()
    for found in store.inventory():
        store.remove(found)
        store.remove(found)
    assert store.inventory() == []
    assert str(raw) not in mount_points()
    store.inject(disk, [file("/etc/after")])
    assert in_guest(disk, "cat /etc/after") == "hello\n"


def test_a_daemon_that_was_left_is_ended_by_release(
    store: ImageStore, disk: Path, tmp_path: Path
) -> None:
    """A daemon killed so hard that its mount stays, as a dead end."""
    process, raw = start_export(tmp_path / "images", part_of(disk).with_name("disk"))
    daemon = int((raw.parent / "pid").read_text())
    process.kill()
    process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.kill(daemon, signal.SIGKILL)
    store.remove_disk(disk)
    store.remove_disk(disk)
    for found in store.inventory():
        store.remove(found)
    assert str(raw) not in mount_points()
    assert names(disk.parent) == []
    assert store.inventory() == []


def test_remove_touches_only_what_is_ours(store: ImageStore, tmp_path: Path) -> None:
    images = tmp_path / "images"
    ours, whole, others = str(uuid.uuid4()), str(uuid.uuid4()), "some-image"
    (images / "store").mkdir(parents=True)
    for name in (ours, others):
        (images / "build" / name).mkdir(parents=True)
        (images / "store" / f"{name}.qcow2.part").touch()
    for name in (whole, others):
        (images / "store" / f"{name}.qcow2").touch()
    found = store.inventory()
    assert [(one.kind, one.owner) for one in found] == [(BUILD, ours), (IMAGE, whole), (PART, ours)]
    other = tmp_path / "other"
    other.mkdir()
    for name in (str(other), str(images / "build" / ".." / ".." / "other")):
        with pytest.raises(InvalidRequest):
            store.remove(found[0].model_copy(update={"name": name}))
    for one in (*found, *found):
        store.remove(one)
    assert store.inventory() == []
    assert (images / "build" / others).is_dir()
    left = {path.name for path in (images / "store").iterdir()}
    assert left == {f"{others}.qcow2", f"{others}.qcow2.part"}

"""Access by debugfs: partitions, mounts, links, limits; on small disks that are made here."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from blocks.changes import collecting
from blocks.errors import (
    FiftyError,
    GuestFault,
    HostFault,
    InvalidRequest,
    NotFound,
    UnsafeImage,
    Unsupported,
)
from blocks.images.access.base import Put, Remove
from blocks.images.access.journals import replay_journal
from blocks.images.access.mount_table import read_fstab
from blocks.images.access.without_kernel import DebugfsAccess
from blocks.images.exports import Exports
from blocks.images.file_systems import Kind
from blocks.images.partitions import GPT_EFI, GPT_ROOT, Table, read_map
from tests.image_maker import MIB, Link, Part, Tree, make_disk, run

BOOT_UUID = "0b1d4a30-0000-4000-8000-00000000b007"
ROOT: Tree = {
    "etc/fstab": f"LABEL=root / ext4 defaults 0 1\nUUID={BOOT_UUID.upper()} /boot ext2 ro 0 2\n"
    "LABEL=nowhere /srv ext4 defaults 0 2\n",
    "etc/passwd": "root:x:0:0::/root:/bin/sh\n",
    "usr/lib/os-release": "ID=test\n",
    "etc/os-release": Link("../usr/lib/os-release"),
    "lib": Link("usr/lib"),
    "abs": Link("/usr/lib/os-release"),
    "slow": Link("/usr/lib/" + "./" * 60 + "os-release"),
    "loop": Link("loop"),
    "out": Link("../../../../../../../etc/hostname"),
    "boot/hidden": "beneath the mount",
    "to-boot": Link("/boot/grub"),
    "empty": "",
    "srv/data": "on the root",
}
BOOT: Tree = {"grub/grub.cfg": "linux /vmlinuz\n", "up": Link("../etc/passwd")}


@contextmanager
def opened(disk: Path, scratch: Path) -> Iterator[DebugfsAccess]:
    scratch.mkdir(exist_ok=True)
    access = DebugfsAccess(disk, scratch)
    try:
        yield access
    finally:
        access.close()


@pytest.fixture(params=["dos", "gpt"])
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    boot = Part(BOOT, size_mib=4, kind="ext2", uuid=BOOT_UUID)
    return make_disk(tmp_path / "disk", [boot, Part(ROOT, label="root")], request.param)


@pytest.fixture
def guest(disk: Path, tmp_path: Path) -> Iterator[DebugfsAccess]:
    with opened(disk, tmp_path / "scratch") as access:
        yield access


def test_the_layout_is_what_sfdisk_and_blkid_say(disk: Path) -> None:
    seen = read_map(disk)
    assert seen.problems == ()
    assert [(one.number, one.offset, one.size) for one in seen.partitions] == [
        (1, MIB, 4 * MIB),
        (2, 5 * MIB, 16 * MIB),
    ]
    for one in seen.partitions:
        assert one.holds is not None
        said = run("blkid", "-p", "-o", "value", "-s", "TYPE", "-s", "UUID",
                   "-O", str(one.offset), disk).split()  # fmt: skip
        assert sorted(said) == sorted([one.holds.uuid, one.holds.kind])
    dumped = run("sfdisk", "--dump", disk).lower()
    for one in seen.partitions:
        if seen.table is Table.GPT:
            assert f"uuid={one.uuid}" in dumped
        assert f"type={one.type}" in dumped


def test_files_are_found_through_links_and_mounts(guest: DebugfsAccess) -> None:
    assert list(guest.mounts) == ["/", "/boot"]
    for path in ("/etc/os-release", "/lib/os-release", "/abs", "/slow", "/lib/../lib/./os-release"):
        assert guest.text(path) == "ID=test\n", path
    assert guest.text("/to-boot/grub.cfg") == "linux /vmlinuz\n"
    assert guest.text("/boot/up") == ROOT["etc/passwd"]
    assert not guest.exists("/boot/hidden")
    assert guest.text("/srv/data") == "on the root"
    assert guest.read("/empty") == b""
    assert guest.names("/boot") == ["grub", "lost+found", "up"]
    assert guest.link("/slow") == "/usr/lib/" + "./" * 60 + "os-release"
    assert [path for path, _node in guest.walk("/usr")] == ["/usr/lib", "/usr/lib/os-release"]


def test_no_link_leads_out_of_the_guest_or_is_followed_for_ever(guest: DebugfsAccess) -> None:
    assert Path("/etc/hostname").exists()
    for path in ("/out", "/loop", "/loop/x", "/etc/passwd/x", "/nope", "/../../nope"):
        assert guest.find(path) is None, path
        assert guest.text(path) is None
        with pytest.raises(NotFound):
            guest.read(path)
    link = guest.find("/out", follow=False)
    assert link is not None
    assert link.is_link


def test_a_link_of_a_terabyte_leads_nowhere_and_fills_nothing(disk: Path, tmp_path: Path) -> None:
    root = f"{disk}?offset={read_map(disk).partitions[-1].offset}"
    run("debugfs", "-w", "-R", "set_inode_field /slow size 0x10000000000", root)
    with opened(disk, tmp_path / "scratch") as guest:
        assert guest.find("/slow", follow=False)
        assert guest.find("/slow") is None
    assert sum(one.stat().st_size for one in (tmp_path / "scratch").iterdir()) < MIB


def test_a_file_larger_than_its_limit_is_not_read(guest: DebugfsAccess) -> None:
    with pytest.raises(UnsafeImage, match="more than 3"):
        guest.read("/etc/passwd", limit=3)


def test_changes_reach_the_file_system_that_is_mounted_there(
    guest: DebugfsAccess, disk: Path
) -> None:
    guest.apply(
        [
            Put("/boot/grub/grub.cfg", b"new\n", 0o600),
            Put("/lib/a/b/c", b"deep", 0o755, uid=7, gid=8),
            Put("/lib/a/b/d", b"too"),
            Put("/abs", b"a file now"),
            Remove("/etc/os-release"),
            Remove("/usr/lib/os-release"),
            Remove("/never-there"),
        ]
    )
    at = {one.offset: f"{disk}?offset={one.offset}" for one in read_map(disk).partitions}
    boot, root = at[MIB], at[5 * MIB]
    assert run("debugfs", "-R", "cat /grub/grub.cfg", boot) == "new\n"
    assert run("debugfs", "-R", "cat /usr/lib/a/b/c", root) == "deep"
    assert "User:     7   Group:     8" in run("debugfs", "-R", "stat /usr/lib/a/b/c", root)
    assert "/usr/lib/os-release" not in run("debugfs", "-R", "ls -p /usr/lib", root)
    assert "os-release" not in run("debugfs", "-R", "ls -p /etc", root)
    assert "Type: regular" in run("debugfs", "-R", "stat /abs", root)
    for image in (boot, root):
        run("e2fsck", "-fn", image)


def test_a_directory_goes_with_all_below_but_not_a_mount(guest: DebugfsAccess, disk: Path) -> None:
    guest.apply([Put("/var/x/y/z", b"1"), Put("/var/x/a", b"2"), Put("/var/b", b"3")])
    guest.apply([Remove("/var/x"), Put("/var/x/new", b"4")])
    assert sorted(path for path, _ in guest.walk("/var")) == ["/var/b", "/var/x", "/var/x/new"]
    for path in ("/boot", "/"):
        with pytest.raises(InvalidRequest):
            guest.apply([Remove(path)])
    run("e2fsck", "-fn", f"{disk}?offset={5 * MIB}")


@pytest.mark.parametrize("path", ["/etc", "/etc/passwd/x", "/out/x", "/loop/x"])
def test_what_cannot_be_written_is_told(guest: DebugfsAccess, path: str) -> None:
    with pytest.raises(InvalidRequest):
        guest.apply([Put(path, b"x")])


def test_of_several_file_systems_the_root_is_the_one_with_an_etc(tmp_path: Path) -> None:
    other = Part({"data/etc/passwd": "no"})
    disk = make_disk(tmp_path / "disk", [other, Part({"etc/fstab": "\n"}), other])
    with opened(disk, tmp_path / "s") as guest:
        assert guest.mounts["/"].offset == 17 * MIB
    typed = Part({"etc/fstab": "\n", "here": "x"}, type=GPT_ROOT)
    disk = make_disk(tmp_path / "gpt", [Part({"etc/fstab": "\n"}), typed], "gpt")
    with opened(disk, tmp_path / "s") as guest:
        assert guest.exists("/here")


def test_a_file_system_on_the_whole_disk(tmp_path: Path) -> None:
    disk = make_disk(tmp_path / "disk", [Part({"etc/passwd": "x"})], "none")
    assert read_map(disk).table is Table.NONE
    with opened(disk, tmp_path / "s") as guest:
        assert guest.text("/etc/passwd") == "x"


def test_logical_partitions(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.touch()
    with disk.open("r+b") as file:
        file.truncate(64 * MIB)
    run("sfdisk", "-q", disk, stdin="label: dos\nstart=2048,size=8192,type=83\n"
        "start=10240,size=100000,type=5\nstart=12288,size=8192,type=83\n"
        "start=22528,size=8192,type=82\n")  # fmt: skip
    seen = read_map(disk)
    assert [(one.number, one.type) for one in seen.partitions] == [(1, "83"), (5, "83"), (6, "82")]
    assert [one.offset // 512 for one in seen.partitions] == [2048, 12288, 22528]


def test_why_a_disk_cannot_be_shown_is_told(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(MIB))
    exports = Exports(tmp_path / "exports")
    with (
        pytest.raises(HostFault, match="not in qcow2 format"),
        exports.open(tmp_path / "disk", "qcow2"),
    ):
        pass
    assert list((tmp_path / "exports").iterdir()) == []


def test_no_root_is_unsupported_and_says_what_there_is(tmp_path: Path) -> None:
    disk = make_disk(tmp_path / "disk", [Part(kind="swap"), Part(kind="raw:LUKS\xba\xbe")])
    with pytest.raises(Unsupported, match="luks, swap"):
        DebugfsAccess(disk, tmp_path)


def _poke(offset: int, content: bytes) -> Callable[[Path], None]:
    def poke(disk: Path) -> None:
        with disk.open("r+b") as file:
            file.seek(offset if offset >= 0 else disk.stat().st_size + offset)
            file.write(content)

    return poke


HUGE = struct.pack("<Q", 2**63)
HOSTILE: dict[str, Callable[[Path], None]] = {
    "no table at all": _poke(0, bytes(1024)),
    "nothing but 0xff": _poke(0, b"\xff" * 34 * 512),
    "a table far away": _poke(512 + 72, HUGE),
    "many entries": _poke(512 + 80, b"\xff\xff\xff\x7f"),
    "entries of no size": _poke(512 + 84, bytes(4)),
    "wrong checksum of the header": _poke(512 + 16, b"\x01"),
    "wrong checksum of the table": _poke(1024 + 56, b"X"),
    "an endless directory": _poke(5 * MIB + 4096 * 4, b"\xff" * 4096),
    "a root directory of rubbish": _poke(5 * MIB + 1024 + 88, b"\x01\x00"),
    "huge blocks": _poke(5 * MIB + 1024 + 24, b"\xff\xff\xff\xff"),
    "no inodes": _poke(5 * MIB + 1024 + 40, bytes(4)),
    "rubbish in the groups": _poke(5 * MIB + 4096, b"\xa5" * 65536),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_broken_disk_is_told_in_bounded_time(tmp_path: Path, name: str) -> None:
    """Either it can be read, or it is refused with an error of ours; never anything else."""
    boot = Part(BOOT, size_mib=4, kind="ext2", uuid=BOOT_UUID)
    disk = make_disk(tmp_path / "disk", [boot, Part(ROOT, label="root")], "gpt")
    HOSTILE[name](disk)
    seen = read_map(disk)
    try:
        with opened(disk, tmp_path / "s") as guest:
            guest.text("/etc/passwd")
            guest.walk("/")
    except FiftyError as error:
        assert error.message
    if name.startswith("wrong checksum"):
        assert seen.problems
        assert len(seen.partitions) == 2, "the backup table is intact"


def test_an_mbr_that_points_at_itself_or_outside(tmp_path: Path) -> None:
    disk = make_disk(tmp_path / "disk", [Part({"etc/passwd": "x"})])
    sector = bytearray(disk.read_bytes()[:512])
    sector[462:478] = struct.pack("<B3xB3xII", 0, 0x05, 0, 100)
    sector[478:494] = struct.pack("<B3xB3xII", 0, 0x83, 2**31, 2**31)
    _poke(0, bytes(sector))(disk)
    seen = read_map(disk)
    assert [one.number for one in seen.partitions] == [1]
    assert any("leads back" in one for one in seen.problems)
    assert any("beyond the end" in one for one in seen.problems)


def test_efi_and_fat_are_known(tmp_path: Path) -> None:
    fat = bytearray(512)
    fat[39:43], fat[43:54], fat[54:62] = b"\x34\x12\xcd\xab", b"EFI        ", b"FAT16   "
    fat[510:512] = b"\x55\xaa"
    efi = Part(type=GPT_EFI, size_mib=4, kind="raw:" + fat.decode("latin-1"))
    disk = make_disk(tmp_path / "disk", [efi], "gpt")
    (held,) = read_map(disk).file_systems
    assert (held.kind, held.uuid, held.label) == (Kind.FAT, "abcd-1234", "EFI")


def test_fstab_is_read_as_fstab_5_says() -> None:
    lines, bad = read_fstab(
        "# comment\n\nUUID=x / ext4\nLABEL=a\\040b /mnt/a\\040b xfs ro,nofail 0 2\n"
        "/dev/vda2 none swap sw 0 0\nrubbish\n/dev/vda3 relative ext4 defaults 0 0\n"
    )
    assert [(line.source, line.point, line.options, line.passno) for line in lines] == [
        ("UUID=x", "/", ("defaults",), "0"),
        ("LABEL=a b", "/mnt/a b", ("ro", "nofail"), "2"),
        ("/dev/vda2", "none", ("sw",), "0"),
    ]
    assert bad == ["rubbish", "/dev/vda3 relative ext4 defaults 0 0"]


def power_cut(tmp_path: Path, content: str) -> Path:
    """A root file system whose journal has an update of /etc/passwd that is still to be done."""
    part = Part(ROOT, label="root", options=("-b", "1024"))
    disk = make_disk(tmp_path / "disk", [part], "none")
    block = run("debugfs", "-R", "blocks /etc/passwd", disk).split()[0]
    (tmp_path / "block").write_bytes(content.encode().ljust(1024, b"\0"))
    commands = f"journal_open\njournal_write -b {block} {tmp_path / 'block'}\njournal_close\n"
    run("debugfs", "-w", "-f", "-", disk, stdin=commands)
    return disk


def test_a_journal_is_replayed_before_anything_is_written(tmp_path: Path) -> None:
    before, after = ROOT["etc/passwd"], "ROOT:x:0:0::/root:/bin/sh\n"
    disk = power_cut(tmp_path, after)
    assert not read_map(disk).file_systems[0].clean
    with opened(disk, tmp_path / "scratch") as access:
        assert access.text("/etc/passwd") == before
        with pytest.raises(GuestFault, match="was not unmounted"):
            access.apply([Put("/etc/new", b"x", 0o644)])
    with collecting() as changes:
        replay_journal(disk)
    assert [change.command.split()[:3] for change in changes] == [["e2fsck", "-f", "-p"]]
    assert read_map(disk).file_systems[0].clean
    with opened(disk, tmp_path / "again") as access:
        assert (access.text("/etc/passwd") or "").startswith(after)
        access.apply([Put("/etc/new", b"x", 0o644)])


def test_a_file_system_that_nobody_can_mend_alone_is_refused(tmp_path: Path) -> None:
    disk = power_cut(tmp_path, "")
    run("debugfs", "-w", "-R", "clri <2>", disk)
    with pytest.raises(GuestFault, match="not consistent"):
        replay_journal(disk)

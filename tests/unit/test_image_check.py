"""The static check: a good image, and the same one broken in one point at a time."""

from __future__ import annotations

import gzip
import io
import lzma
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from blocks.errors import FiftyError, UnsafeImage
from blocks.images.access.without_kernel import DebugfsAccess
from blocks.images.check import POINTS, Finding, Verdict, look_at
from blocks.images.check.firmware import Firmware, find_loaders
from blocks.images.check.guest import read_yaml
from blocks.images.check.initrd import names_in
from tests.image_maker import MIB, Link, Part, Tree, make_disk, run

VERSION = "6.1.0-1-cloud-amd64"
MODULES = ("kernel/drivers/virtio/virtio_pci.ko", "kernel/drivers/block/virtio_blk.ko.xz")
WANTS = "etc/systemd/system/multi-user.target.wants"


def cpio(*names: str) -> bytes:
    """An archive in the kernel's format: empty files of these names."""
    out = io.BytesIO()
    for name in (*names, "TRAILER!!!"):
        path = name.encode() + b"\0"
        fields = [0] * 13
        fields[11] = len(path)
        out.write(b"070701" + b"".join(b"%08x" % field for field in fields) + path)
        out.write(bytes(-out.tell() % 4))
    return out.getvalue()


GOOD: Tree = {
    "bin": Link("usr/bin"),
    "sbin": Link("usr/sbin"),
    "lib": Link("usr/lib"),
    f"boot/vmlinuz-{VERSION}": "kernel",
    f"boot/initrd.img-{VERSION}": gzip.compress(cpio(*MODULES)),
    f"boot/config-{VERSION}": "CONFIG_VIRTIO_PCI=m\nCONFIG_VIRTIO_BLK=m\nCONFIG_VIRTIO_NET=m\n",
    "boot/grub/grub.cfg": f"  linux /boot/vmlinuz-{VERSION} root=LABEL=root console=ttyS0 quiet\n"
    f"  initrd /boot/initrd.img-{VERSION}\n",
    "etc/fstab": "LABEL=root / ext4 defaults 0 1\ntmpfs /tmp tmpfs defaults 0 0\n",
    "etc/machine-id": "",
    "etc/passwd": "root:x:0:0::/root:/bin/sh\ndebian:x:1000:1000::/home/debian:/bin/sh\n",
    "etc/shadow": "root:*:19000:0:99999:7:::\ndebian:!:19000:0:99999:7:::\n",
    "etc/ssh/sshd_config": "PermitRootLogin prohibit-password\n",
    "etc/cloud/cloud.cfg": "users: [default]\n"
    "cloud_init_modules: [growpart, resizefs, users-groups, ssh]\n",
    "etc/cloud/cloud.cfg.d/90.cfg": "datasource_list: [ConfigDrive, None]\n",
    "etc/systemd/network/80.network": "[Match]\nName=en*\n[Network]\nDHCP=yes\n",
    "usr/bin/cloud-init": "",
    "usr/bin/growpart": "",
    "usr/sbin/sshd": "",
    "usr/lib/systemd/systemd": "",
    f"{WANTS}/ssh.service": Link("/usr/lib/systemd/system/ssh.service"),
    f"{WANTS}/cloud-init.target": Link("/usr/lib/systemd/system/cloud-init.target"),
    "home/debian": None,
    "root": None,
    "tmp": None,
}
CODE = b"\xeb\x63\x90" + bytes(300) + b"GRUB"


def look(
    disk_folder: Path,
    tree: Tree,
    *,
    table: str = "dos",
    before: tuple[Part, ...] = (),
    more: tuple[Part, ...] = (),
    asked: str = "bios",
    code: bytes = CODE,
    line: str = ", bootable",
    after: Callable[[Path], None] | None = None,
) -> dict[str, Finding]:
    root = Part(tree, label="root", line=line, type="L", modes={"root": 0o700, "tmp": 0o1777})
    disk = make_disk(disk_folder / "disk", [*before, root, *more], table, code)
    if after is not None:
        after(disk)
    firmware = Firmware(asked, "bookworm:2", find_loaders(disk, disk_folder))
    access = DebugfsAccess(disk, disk_folder)
    try:
        return {one.point: one for one in look_at(access, firmware)}
    finally:
        access.close()


def bad(found: dict[str, Finding]) -> dict[str, Verdict]:
    return {name: one.verdict for name, one in found.items() if one.verdict is not Verdict.PASS}


def test_a_good_image_passes_every_point_with_evidence(tmp_path: Path) -> None:
    found = look(tmp_path, GOOD)
    assert list(found) == [point.name for point in POINTS]
    assert bad(found) == {}
    assert [name for name, one in found.items() if not one.evidence] == []


def plus(path: str, content: str | bytes | Link = "") -> Tree:
    return {**GOOD, path: content}


def without(*paths: str) -> Tree:
    return {path: content for path, content in GOOD.items() if path not in paths}


PASS, FAIL, WARN, UNKNOWN = Verdict.PASS, Verdict.FAIL, Verdict.WARN, Verdict.UNKNOWN
MAC = "52:54:00:12:34:56"
KEY = "ssh-ed25519 AAAA somebody"
#: A tree, the point that it breaks, how badly, and what the evidence has to say.
BROKEN: list[tuple[Tree, str, Verdict, str]] = [
    (without("boot/grub/grub.cfg"), "boot-loader", FAIL, "no configuration"),
    (without(f"boot/vmlinuz-{VERSION}"), "boot-loader", FAIL, "not there"),
    (plus("etc/cloud/cloud.cfg", "users: [default]\ncloud_init_modules: [users-groups, ssh]\n"),
     "root-grows", FAIL, "nothing grows the root file system"),
    (without("usr/bin/growpart"), "root-grows", FAIL, "no growpart(1)"),
    (plus("boot/grub/grub.cfg", f"linux /boot/vmlinuz-{VERSION} console=tty0\n"),
     "console", FAIL, "console=tty0"),
    (plus(f"boot/config-{VERSION}", "CONFIG_VIRTIO_PCI=m\nCONFIG_VIRTIO_BLK=m\n"),
     "virtio-kernel", FAIL, "no virtio_net"),
    (without(f"boot/config-{VERSION}"), "virtio-kernel", UNKNOWN, "neither"),
    (plus(f"boot/initrd.img-{VERSION}", gzip.compress(cpio(MODULES[0]))),
     "virtio-initrd", FAIL, "lacks virtio_blk"),
    (plus(f"boot/initrd.img-{VERSION}", b"rubbish"), "virtio-initrd", UNKNOWN, "begins with"),
    (plus("etc/fstab", "/dev/sda1 / ext4 defaults 0 1\n"), "fstab", FAIL, "/dev/sda1"),
    (plus("etc/fstab", "LABEL=root / ext4\nUUID=gone /srv ext4\n"), "fstab", FAIL, "UUID=gone"),
    (plus("etc/fstab", "LABEL=root / ext4\nwhat is\n"), "fstab", FAIL, "nobody can read"),
    (plus("etc/fstab", "LABEL=root / ext4\nLABEL=root / ext4\n"), "fstab", FAIL, "twice"),
    (without("etc/fstab"), "fstab", WARN, "no /etc/fstab"),
    (plus("etc/udev/rules.d/70-persistent-net.rules",
          f'SUBSYSTEM=="net", ATTR{{address}}=="{MAC}", NAME="eth0"\n'), "fixed-mac", FAIL, MAC),
    (plus("etc/systemd/network/10-a.link", f"[Match]\nMACAddress={MAC}\n"), "fixed-mac", FAIL, MAC),
    (plus("etc/netplan/50.yaml", f"      match:\n        macaddress: '{MAC}'\n"),
     "fixed-mac", FAIL, MAC),
    (plus("etc/sysconfig/network-scripts/ifcfg-eth0", f"HWADDR={MAC}\nBOOTPROTO=dhcp\n"),
     "fixed-mac", FAIL, MAC),
    (plus("etc/network/interfaces", "iface eth0 inet static\n  address 192.0.2.7\n"),
     "dhcp", FAIL, "inet static"),
    (plus("etc/systemd/network/90.network", "[Match]\nName=e*\n[Network]\nAddress=192.0.2.1/24\n"),
     "dhcp", FAIL, "192.0.2.1"),
    ({**GOOD, "etc/systemd/network/80.network": "", "etc/cloud/cloud.cfg.d/99.cfg":
             "network: {config: disabled}\n"}, "dhcp", FAIL, "nothing asks"),
    (without("usr/sbin/sshd"), "ssh-server", FAIL, "neither sshd"),
    (without(f"{WANTS}/ssh.service"), "ssh-server", FAIL, "nothing starts it"),
    (plus("etc/systemd/system/ssh.service", Link("/dev/null")), "ssh-server", FAIL, "masked"),
    (plus("etc/ssh/sshd_not_to_be_run"), "ssh-server", FAIL, "sshd_not_to_be_run"),
    (plus("etc/ssh/sshd_config", "PubkeyAuthentication no\n"), "key-login", FAIL, "Pubkey"),
    (plus("etc/ssh/sshd_config.d/x.conf", "PermitRootLogin yes\n"), "key-login", WARN, "Permit"),
    (plus("etc/ufw/ufw.conf", "ENABLED=yes\n"), "firewall", FAIL, "ufw"),
    ({**GOOD, "etc/ufw/ufw.conf": "ENABLED=yes\n",
             "etc/ufw/user.rules": "-A ufw-user-input -p tcp --dport 22 -j ACCEPT\n"},
     "firewall", WARN, "let in"),
    ({**GOOD, "etc/nftables.conf": "type filter hook input priority 0; policy drop;\n",
             f"{WANTS}/nftables.service": Link("/lib/x")}, "firewall", FAIL, "nftables"),
    (without("usr/bin/cloud-init"), "cloud-init", FAIL, "not there"),
    (without(f"{WANTS}/cloud-init.target"), "cloud-init", FAIL, "nothing starts it"),
    (plus("etc/cloud/cloud-init.disabled"), "cloud-init", FAIL, "disabled"),
    (plus("etc/cloud/cloud.cfg.d/90.cfg", "datasource_list: [Ec2]\n"), "cloud-init", FAIL, "Ec2"),
    (plus("etc/cloud/cloud.cfg.d/99.cfg", "a: [b\n"), "cloud-init", FAIL, "no YAML"),
    (plus("etc/cloud/cloud.cfg.d/99.cfg", "users: [me]\n"), "key-setup", FAIL, "users"),
    (plus("etc/machine-id", "0123456789abcdef0123456789abcdef\n"), "machine-id", FAIL, "01234"),
    (without("etc/machine-id"), "machine-id", WARN, "not there"),
    (plus("var/lib/dbus/machine-id", "0123456789abcdef\n"), "machine-id", FAIL, "dbus"),
    (plus("etc/ssh/ssh_host_ed25519_key", "secret"), "host-keys", FAIL, "ssh_host_ed25519_key"),
    (plus("etc/shadow", "root:$6$salt$hash:19000::::::\n"), "passwords", FAIL, "root has a p"),
    (plus("etc/shadow", "root::19000::::::\n"), "passwords", FAIL, "empty password"),
    (plus("root/.ssh/authorized_keys", KEY), "keys", FAIL, "1 key(s)"),
    (plus("home/debian/.ssh/id_ed25519", "secret"), "keys", FAIL, "private key"),
    (plus("var/lib/cloud/instances/i-1/x"), "state", FAIL, "cloud-init has run"),
    (plus("var/lib/dhcp/dhclient.eth0.leases"), "state", WARN, "leases"),
    (plus("root/.bash_history", "rm -rf /\n"), "state", WARN, "bash_history"),
    (plus("tmp/left"), "state", WARN, "/tmp/left"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("tree", "point", "verdict", "said"),
    BROKEN,
    ids=[f"{point}-{said}" for _tree, point, _verdict, said in BROKEN],
)
def test_what_is_broken_is_found_and_nothing_else(
    tmp_path: Path, tree: Tree, point: str, verdict: Verdict, said: str
) -> None:
    found = look(tmp_path, tree)
    assert found[point].verdict is verdict
    assert said in " ".join(found[point].evidence)
    also = {
        # Without cloud-init's modules nobody sets up keys either; and so on.
        ("root-grows", "nothing grows the root file system"): set(),
        ("boot-loader", "no configuration"): {"console"},
        ("boot-loader", "not there"): {"virtio-kernel"},
        ("cloud-init", "not there"): set(),
        ("virtio-kernel", "neither"): set(),
    }.get((point, said), set())
    assert set(bad(found)) == {point} | also


def test_a_disk_that_nothing_starts(tmp_path: Path) -> None:
    found = look(tmp_path, GOOD, code=b"")
    assert found["boot-loader"].verdict is FAIL
    (tmp_path / "b").mkdir()
    assert look(tmp_path / "b", GOOD, line="")["boot-loader"].verdict is WARN


def test_a_partition_behind_the_root_keeps_it_from_growing(tmp_path: Path) -> None:
    found = look(tmp_path, GOOD, more=(Part(kind="swap", type="S", size_mib=4),))
    assert bad(found) == {"root-grows": FAIL}
    assert "partition 2" in found["root-grows"].evidence[0]


def test_a_broken_partition_table(tmp_path: Path) -> None:
    def overlap(disk: Path) -> None:
        sector = bytearray(disk.read_bytes()[:512])
        sector[462:478] = sector[446:462]
        with disk.open("r+b") as file:
            file.write(sector)

    found = look(tmp_path, GOOD, after=overlap)
    assert found["partition-table"].verdict is FAIL
    assert "overlap" in " ".join(found["partition-table"].evidence)


@pytest.mark.parametrize("table", ["gpt", "none"])
def test_other_tables(tmp_path: Path, table: str) -> None:
    line = ', attrs="LegacyBIOSBootable"' if table == "gpt" else ""
    found = look(tmp_path, GOOD, table=table, line=line, code=CODE if table == "gpt" else b"")
    wrong = bad(found)
    # Code in the first sector of an ext4 would be its boot sector: nobody starts that.
    assert wrong == ({} if table == "gpt" else {"boot-loader": FAIL})


def esp(loader: str = "EFI/Boot/bootx64.efi", content: bytes = b"MZ\x90") -> Part:
    """An EFI system partition with one file."""
    return Part({loader: content + bytes(90_000)}, kind="vfat", label="EFI", type="U")


SET = "`fifty image set bookworm:2 --property hw_firmware_type"
LEGACY = ', attrs="LegacyBIOSBootable"'
BIOS_BOOT = Part(kind="raw:", type="21686148-6449-6E6F-744E-656564454649", size_mib=1)
#: What lies before the root, the first sector's code and the root's flag; what the image asks for;
#: what is said of the boot loader, and the beginning of its hint.
FIRMWARES: dict[str, tuple[tuple[Part, ...], bytes, str, str, Verdict, str, str]] = {
    "uefi alone": ((esp(),), b"", "", "bios", FAIL, "have a BIOS", f"{SET}=uefi`"),
    "uefi as asked": ((esp(),), b"", "", "uefi", PASS, "partition 1 holds EFI/BOOT/BOOTX64", ""),
    "both, bios": ((esp(), BIOS_BOOT), CODE, "", "bios", PASS, "boot code", ""),
    "both, uefi": ((BIOS_BOOT, esp()), CODE, "", "uefi", PASS, "partition 2 holds", ""),
    "code without a loader": ((esp(),), CODE, "", "bios", WARN, "GPT without", "if only UEFI"),
    "bios alone": ((), CODE, LEGACY, "uefi", FAIL, "no partition has a FAT", f"{SET}=bios`"),
    "nothing": ((), b"", "", "uefi", FAIL, "no partition has a FAT", "install a boot loader"),
    "a loader in NVRAM only": (
        (esp("EFI/debian/shimx64.efi"),), b"", "", "uefi", FAIL,
        "EFI/BOOT/BOOTX64.EFI is not there", "install the boot loader as on a removable",
    ),
    "no program": ((esp(content=b"no"),), b"", "", "uefi", FAIL, "is not there", "install the"),
    "another word": ((esp(),), b"", "", "UEFI", FAIL, "hw_firmware_type=UEFI is", f"{SET}=bios`"),
}  # fmt: skip


@pytest.mark.parametrize("case", FIRMWARES)
def test_the_firmware_that_its_vms_get_finds_a_boot_loader(tmp_path: Path, case: str) -> None:
    before, code, line, asked, verdict, said, hint = FIRMWARES[case]
    found = look(tmp_path, GOOD, table="gpt", before=before, code=code, line=line, asked=asked)
    assert bad(found) == ({} if verdict is PASS else {"boot-loader": verdict})
    assert said in " ".join(found["boot-loader"].evidence)
    assert found["boot-loader"].hint.startswith(hint)
    assert found["boot-loader"].hint or verdict is PASS


def test_an_mbr_with_an_efi_partition_that_is_no_fat(tmp_path: Path) -> None:
    found = look(tmp_path, GOOD, before=(Part(kind="raw:", type="U"),), code=b"")
    assert bad(found) == {"boot-loader": FAIL}
    assert found["boot-loader"].hint == f"{SET}=uefi`"
    assert "no partition has a FAT with EFI/BOOT/BOOTX64.EFI" in found["boot-loader"].evidence


def test_a_fat_that_nobody_can_read(tmp_path: Path) -> None:
    def damage(disk: Path) -> None:
        with disk.open("r+b") as file:
            file.seek(MIB + 11)
            file.write(bytes(10))

    found = look(tmp_path, GOOD, table="gpt", before=(esp(),), code=b"", asked="uefi", after=damage)
    assert bad(found) == {"boot-loader": UNKNOWN}
    assert "cannot be told" in " ".join(found["boot-loader"].evidence)


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_fat_is_told_of_in_time(tmp_path: Path, seed: int) -> None:
    random = Random(seed)  # noqa: S311 - no secret

    def damage(disk: Path) -> None:
        with disk.open("r+b") as file:
            for _ in range(random.choice((1, 8, 64, 512))):
                # Its first sector, its tables, and its root directory.
                file.seek(MIB + random.choice((random.randrange(512), random.randrange(64 << 10))))
                file.write(bytes([random.randrange(256)]))

    found = look(tmp_path, GOOD, table="gpt", before=(esp(),), code=b"", asked="uefi", after=damage)
    assert list(found) == [point.name for point in POINTS]


def test_of_many_fats_some_are_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blocks.images.check.firmware._MOST_FATS", 1)
    found = look(tmp_path, GOOD, table="gpt", before=(esp("a"), esp()), code=b"", asked="uefi")
    assert bad(found) == {"boot-loader": FAIL}


def test_a_loader_is_not_looked_for_without_mtools(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("debugfs", "stdbuf", "gzip"):
        (programs / name).symlink_to(shutil.which(name) or name)

    def hidden(_disk: Path) -> None:
        monkeypatch.setenv("PATH", str(programs))

    found = look(tmp_path, GOOD, table="gpt", before=(esp(),), code=b"", asked="uefi", after=hidden)
    assert bad(found) == {"boot-loader": UNKNOWN}
    assert found["boot-loader"].hint.startswith("install mtools")


def by_program(*words: str) -> Callable[[bytes], bytes]:
    def pack(content: bytes) -> bytes:
        return subprocess.run(words, input=content, capture_output=True, check=True).stdout

    return pack


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "xz": lambda content: lzma.compress(content, check=lzma.CHECK_CRC32),
    "lzma": lambda content: lzma.compress(content, format=lzma.FORMAT_ALONE),
    "zstd": by_program("zstd", "-q", "-c"),
    "lz4": by_program("lz4", "-q", "-l", "-c"),
}


@pytest.mark.parametrize("packer", PACKERS)
def test_names_in_an_initial_ram_disk(packer: str) -> None:
    early = cpio("kernel/x86/microcode/GenuineIntel.bin") + bytes(512)
    content = early + PACKERS[packer](cpio("init", *MODULES))
    assert names_in(content) >= {"init", *MODULES, "kernel/x86/microcode/GenuineIntel.bin"}


def test_a_bomb_in_the_place_of_an_initial_ram_disk(tmp_path: Path) -> None:
    """A GiB and more of zeros in some KiB, and archives that are none: refused in bounded time."""
    header = cpio("x")
    endless = header[:54] + b"ffffffff" + header[62:112]
    bomb = tmp_path / "bomb"
    with bomb.open("wb") as file:
        file.write(endless)
        file.truncate(1100 * 1024**2)
    run("zstd", "-q", bomb)
    packed = bomb.with_suffix(".zst").read_bytes()
    assert len(packed) < 1024**2
    with pytest.raises(UnsafeImage, match="more than 1 GiB"):
        names_in(packed)
    for content in (endless, b"070701" + b"z" * 200, header[:-20], gzip.compress(b"x")[:12]):
        with pytest.raises(FiftyError):
            names_in(content)


def test_yaml_that_explodes_is_not_read() -> None:
    levels = ["a0: &a0 {k: v}"]
    levels += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 12)]
    assert read_yaml("\n".join(levels)) is None
    assert read_yaml("[" * 5000) is None
    assert read_yaml("a: &x [1]\nb: *x\n") == {"a": [1], "b": [1]}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("whole")
    root = Part(GOOD, label="root", line=", bootable", size_mib=8)
    return make_disk(folder / "disk", [root], boot_code=CODE).read_bytes()


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_image_is_told_of_or_refused(tmp_path: Path, whole: bytes, seed: int) -> None:
    """Random bytes in tables, inodes and directories: findings or an error of ours, in time."""
    random = Random(seed)  # noqa: S311 - no secret
    content = bytearray(whole)
    for _ in range(random.choice((1, 8, 64, 512))):
        # The partition table, and the first MiB of the file system: all of its metadata.
        at = random.choice((random.randrange(512), random.randrange(1 << 20, 2 << 20)))
        content[at] = random.randrange(256)
    disk = tmp_path / "disk"
    disk.write_bytes(content)
    try:
        access = DebugfsAccess(disk, tmp_path)
    except FiftyError as error:
        assert error.message
        return
    try:
        assert [one.point for one in look_at(access)] == [point.name for point in POINTS]
    finally:
        access.close()


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "text", ["\n" * (MIB - 10), "dport {" * (MIB // 8), "a /b c\n" * (MIB // 8)]
)
def test_a_megabyte_of_nothing_is_read_once(tmp_path: Path, text: str) -> None:
    """Patterns and lists that look at all of it again for each line would take hours."""
    names = [
        path for path in GOOD if path.startswith(("etc/ssh/", "etc/systemd/network", "boot/g"))
    ]
    names += ["etc/fstab", "etc/ufw/ufw.conf", "etc/ufw/user.rules", "etc/netplan/50.yaml"]
    names += ["etc/network/interfaces", "etc/nftables.conf", f"boot/config-{VERSION}"]
    begin = {"etc/netplan/50.yaml": "addresses:", "etc/ufw/ufw.conf": "ENABLED=yes\n"}
    found = look(tmp_path, {**GOOD, **{name: begin.get(name, "") + text for name in names}})
    assert len(found) == len(POINTS)
    assert max(len(one.evidence) for one in found.values()) < 100


def test_an_image_that_keeps_one_busy_is_left_alone_at_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many: Tree = {**GOOD, **{f"etc/netplan/{n}.yaml": "dhcp4: true\n" for n in range(600)}}
    assert bad(look(tmp_path, many)) == {}
    monkeypatch.setattr("blocks.images.check._LONGEST_S", -1.0)
    (tmp_path / "b").mkdir()
    found = look(tmp_path / "b", GOOD)
    assert {one.verdict for one in found.values()} == {UNKNOWN}

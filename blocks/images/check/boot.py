"""Whether it starts by itself, on virtio, with its log on the console, and grows."""

from __future__ import annotations

import re
from collections import Counter

from blocks.errors import FiftyError
from blocks.images.access.mount_table import MountLine, partition_of, read_fstab
from blocks.images.check.firmware import look_at_firmware
from blocks.images.check.guest import Guest
from blocks.images.check.initrd import names_in
from blocks.images.check.points import Points
from blocks.images.check.report import Notes
from blocks.images.file_systems import Kind

BOOT = Points()

_LARGEST_INITRD = 512 * 1024 * 1024
#: Drivers without which there is no root disk, and without which there is no network.
_DISK_DRIVERS = ("virtio_pci", "virtio_blk")
_DRIVERS = (*_DISK_DRIVERS, "virtio_net")
_BY_NAME = re.compile(r"/dev/(?:(?:s|v|h|xv)d[a-z]|nvme\d|mmcblk\d)")
_VIRTUAL = frozenset({"tmpfs", "proc", "sysfs", "devpts", "devtmpfs", "cgroup2", "efivarfs"})


@BOOT.point("partition-table", "The partition table is sound")
def partition_table(guest: Guest, notes: Notes) -> None:
    """Its numbers lie on the disk, nothing overlaps."""
    count = len(guest.map.partitions)
    notes.saw(f"{guest.map.table} with {count} partition(s), {guest.map.size} bytes")
    for problem in guest.map.problems:
        notes.fail(problem, "make the partition table anew (sfdisk)")
    root = guest.access.mounts["/"]
    if not root.clean:
        notes.warn("the root file system was not unmounted", "shut the guest down before capture")
    partition = guest.root_partition
    if root.size > partition.size:
        notes.fail(f"the root file system has {root.size} bytes, its partition {partition.size}")


@BOOT.point("boot-loader", "A boot loader starts it by itself")
def boot_loader(guest: Guest, notes: Notes) -> None:
    """What its VMs' firmware starts, its configuration, and the kernel it names."""
    look_at_firmware(guest.map, guest.firmware, notes)
    if not guest.boot_configs:
        notes.fail("no configuration of grub, extlinux or systemd-boot", "install a boot loader")
    for path, text in guest.boot_configs:
        notes.saw(f"{path} is there")
        for kernel in re.findall(r"(?im)^[ \t]*(?:linux(?:16|efi)?|initrd)[ \t]+(/\S+)", text):
            if not any(guest.access.exists(f"{start}{kernel}") for start in ("", "/boot")):
                notes.fail(f"{path} starts {kernel}, which is not there", "run update-grub")
    if not guest.kernels:
        notes.fail("there is no kernel in /boot", "install a kernel")


@BOOT.point("root-grows", "The root file system grows to the flavor's disk at boot")
def root_grows(guest: Guest, notes: Notes) -> None:
    """The root partition is the last one, and growpart and resizefs run (or the like)."""
    root = guest.root_partition
    after = [one.number for one in guest.map.partitions if one.offset > root.offset]
    if after:
        notes.fail(
            f"partition {after[0]} lies behind the root's: it cannot grow",
            "make the root partition the last one",
        )
    if guest.is_micro:
        notes.saw("micro's initial RAM disk grows the partition, its init the file system")
        return
    modules = guest.cloud_modules("init")
    if "resizefs" in modules:
        notes.saw("cloud-init's resizefs runs in the init stage")
    elif any("x-systemd.growfs" in line.options for line in _fstab(guest) if line.point == "/"):
        notes.saw("fstab: x-systemd.growfs")
    else:
        notes.fail("nothing grows the root file system", "cloud-init's module resizefs does")
    if root.number == 0:
        notes.saw("the file system is on the whole disk: no partition has to grow")
        return
    grower = next(
        (one for one in ("/usr/bin/growpart", "/sbin/growpart") if guest.access.exists(one)), None
    )
    if "growpart" in modules and grower:
        notes.saw(f"cloud-init's growpart runs in the init stage, with {grower}")
    elif guest.access.names("/usr/lib/repart.d") or guest.access.names("/etc/repart.d"):
        notes.saw("systemd-repart is configured")
    elif "growpart" in modules:
        notes.fail("cloud-init's growpart runs, but there is no growpart(1)",
                   "install cloud-guest-utils")  # fmt: skip
    else:
        notes.fail("nothing grows the root partition", "cloud-init's module growpart does")


@BOOT.point("console", "The boot log is written to the serial console")
def console(guest: Guest, notes: Notes) -> None:
    """The kernel's command line names ttyS0."""
    if not guest.command_lines:
        notes.fail("no kernel command line is known", "add console=ttyS0 to it")
    for path, line in guest.command_lines:
        consoles = re.findall(r"(?:^|\s)console=(\S+)", line)
        if any(one.startswith("ttyS0") for one in consoles):
            notes.saw(f"{path}: console={' console='.join(consoles)}")
        elif re.search(r"\b(single|recovery|rescue)\b", line):
            notes.saw(f"{path}: recovery, without console=ttyS0")
        else:
            notes.fail(f"{path}: {line or '(nothing)'}", "add console=ttyS0 to the command line")


@BOOT.point("virtio-kernel", "The kernel has the virtio drivers")
def virtio_kernel(guest: Guest, notes: Notes) -> None:
    """Built in or as modules, by the kernel's configuration or its directory of modules."""
    if guest.is_micro:
        notes.saw("micro's own list of modules, see virtio-initrd")
        return
    for kernel in guest.kernels:
        version = kernel.rpartition("/")[2].partition("-")[2]
        built_in, modules = _drivers(guest, version)
        for driver in _DRIVERS:
            if driver in built_in or driver in modules:
                notes.saw(f"{version}: {driver} {'built in' if driver in built_in else 'module'}")
            elif modules or built_in:
                notes.fail(f"{version}: no {driver}", "install a kernel that has it")
            else:
                notes.unknown(f"{version}: neither configuration nor modules are there")
    if not guest.kernels:
        notes.unknown("there is no kernel in /boot")


@BOOT.point("virtio-initrd", "The initial RAM disk has the virtio drivers of the root disk")
def virtio_initrd(guest: Guest, notes: Notes) -> None:
    """Those that are not built into the kernel are in the initial RAM disk."""
    folder = "/boot"
    names = [name for name in guest.access.names(folder) if name.startswith("initr")]
    images = [name for name in names if "kdump" not in name and "fallback" not in name]
    if not images:
        notes.unknown("there is no initial RAM disk in /boot")
    for name in images:
        version = re.sub(r"^initr(?:d|amfs)(?:\.img)?-|\.img$", "", name)
        wanted = [one for one in _DISK_DRIVERS if one not in _drivers(guest, version)[0]]
        try:
            content = guest.access.read(f"{folder}/{name}", limit=_LARGEST_INITRD)
            inside = {_module_name(one) for one in names_in(content)}
        except FiftyError as error:
            notes.unknown(f"{folder}/{name}: {error.message}", error.hint)
            continue
        for driver in wanted:
            if driver in inside:
                notes.saw(f"{folder}/{name} holds {driver}")
            else:
                notes.fail(f"{folder}/{name} lacks {driver}", "add it, and run update-initramfs")
        if not wanted:
            notes.saw(f"{version}: the drivers are built into the kernel")


@BOOT.point("fstab", "/etc/fstab is readable, and names its file systems by label or UUID")
def fstab(guest: Guest, notes: Notes) -> None:
    """A name like /dev/vda1 is another disk's on another bus."""
    text = guest.access.text("/etc/fstab")
    if text is None:
        if guest.is_micro:
            notes.saw("micro needs none: its init mounts what there is")
        else:
            notes.warn("there is no /etc/fstab", "the root is mounted as the kernel is told")
        return
    lines, bad = read_fstab(text)
    for one in bad:
        notes.fail(f"nobody can read: {one}", "see fstab(5)")
    points = Counter(line.point for line in lines if line.point.startswith("/"))
    for point in sorted(one for one, count in points.items() if count > 1):
        notes.fail(f"{point} is there twice")
    for line in lines:
        _source(guest, notes, line)
    if "/" not in points:
        notes.warn("the root is not in it: it is not checked at boot")
    swap = [one for one in guest.map.file_systems if one.kind is Kind.SWAP]
    if swap and not any(line.kind == "swap" for line in lines):
        notes.saw("a swap partition is there that nothing uses")


def _source(guest: Guest, notes: Notes, line: MountLine) -> None:
    """Whether what a line of fstab mounts will be found."""
    said = f"{line.source} on {line.point}"
    if line.kind in _VIRTUAL or "bind" in line.options:
        return
    if _BY_NAME.match(line.source):
        notes.fail(said, "use LABEL= or UUID=: the disk's name depends on its bus")
    elif partition_of(line.source, guest.map) is not None:
        notes.saw(said)
    elif {"nofail", "noauto"} & set(line.options):
        notes.saw(f"{said}: not on this disk, and not needed")
    elif line.source.startswith(("LABEL=", "UUID=", "PARTUUID=", "PARTLABEL=", "/dev/disk/")):
        notes.fail(f"{said}: not on this disk", "the boot waits for it: add nofail")
    else:
        notes.warn(f"{said}: cannot be said where that is")


def _fstab(guest: Guest) -> list[MountLine]:
    return read_fstab(guest.access.text("/etc/fstab") or "")[0]


def _drivers(guest: Guest, version: str) -> tuple[set[str], set[str]]:
    """What a kernel has built in, and as modules."""
    config = guest.access.text(f"/boot/config-{version}") or ""
    said = dict(re.findall(r"^CONFIG_(VIRTIO_\w+)=([ym])$", config, re.MULTILINE))
    built_in = {name.lower() for name, how in said.items() if how == "y"}
    modules = {name.lower() for name, how in said.items() if how == "m"}
    for folder in (f"/lib/modules/{version}", f"/usr/lib/modules/{version}"):
        listed = guest.access.text(f"{folder}/modules.builtin") or ""
        built_in |= {_module_name(line) for line in listed.splitlines()}
        for part in ("drivers/virtio", "drivers/block", "drivers/net"):
            names = guest.access.names(f"{folder}/kernel/{part}")
            modules |= {_module_name(name) for name in names if ".ko" in name}
    return built_in, modules


def _module_name(path: str) -> str:
    """A module's name, of the path of its file."""
    return path.rpartition("/")[2].partition(".ko")[0].replace("-", "_")

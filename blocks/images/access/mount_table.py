"""Which of a disk's file systems is the root, and what the guest mounts beneath it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from blocks.errors import Unsupported
from blocks.images.file_systems import ROOT_KINDS, FileSystem, Kind
from blocks.images.partitions import GPT_ROOT, DiskMap, Partition

#: Labels that people and distributions give a root file system.
_ROOT_LABELS = ("root", "cloudimg-rootfs", "rootfs", "/")
_DEVICE = re.compile(r"/dev/(?:(?:s|v|h|xv)d[a-z]|nvme\d+n\d+p|mmcblk\d+p)(\d+)")
_ESCAPE = re.compile(r"\\([0-7]{3})")
_MOUNTABLE = ROOT_KINDS | {Kind.FAT}


@dataclass(frozen=True)
class MountLine:
    """A line of fstab(5).

    Attributes:
        source: The first field, as written.
        point: Where it is mounted.
        kind: The file system's type.
        options: The mount options.
        passno: The sixth field: the order of checks.
    """

    source: str
    point: str
    kind: str
    options: tuple[str, ...]
    passno: str


def read_fstab(text: str) -> tuple[list[MountLine], list[str]]:
    """The lines of an fstab, and those that nobody can read."""
    lines, bad = [], []
    for line in text.splitlines():
        bare = line.strip()
        if not bare or bare.startswith("#"):
            continue
        fields = [_ESCAPE.sub(lambda found: chr(int(found[1], 8)), one) for one in bare.split()]
        if not 3 <= len(fields) <= 6:
            bad.append(bare)
            continue
        fields += ["defaults", "0", "0"][len(fields) - 3 :]
        source, point, kind, options, _dump, passno = fields
        if not point.startswith("/") and kind != "swap" and point not in ("none", "swap"):
            bad.append(bare)
            continue
        lines.append(MountLine(source, point, kind, tuple(options.split(",")), passno))
    return lines, bad


def partition_of(source: str, disk_map: DiskMap) -> Partition | None:
    """The partition that a source of fstab(5) names: by UUID, label, or device."""
    tag, _, value = source.replace('"', "").partition("=")
    by_link = re.fullmatch(r"/dev/disk/by-(uuid|label|partuuid|partlabel)/(.+)", source)
    if by_link:
        tag, value = by_link[1].upper(), by_link[2]
    device = _DEVICE.fullmatch(source)
    for one in disk_map.partitions:
        if device and one.number == int(device[1]):
            return one
        said = {
            "PARTUUID": one.uuid,
            "PARTLABEL": one.name,
            "UUID": one.holds.uuid if one.holds else "",
            "LABEL": one.holds.label if one.holds else "",
        }.get(tag, "")
        if said and (said == value or (tag.endswith("UUID") and said == value.lower())):
            return one
    return None


def find_root(disk_map: DiskMap, has_etc: Callable[[FileSystem], bool]) -> FileSystem:
    """The root file system: the one of GPT's type, of a usual label, or that looks like one.

    Args:
        disk_map: The disk's layout.
        has_etc: Looks into a file system whether there is an `/etc` with an fstab, a passwd
            or an os-release; asked only where several may be meant.

    Raises:
        Unsupported: There is none; the message says what there is.
    """
    found = [
        (one, one.holds)
        for one in disk_map.partitions
        if one.holds is not None and one.holds.kind in ROOT_KINDS
    ]
    if not found:
        kinds = sorted({one.kind for one in disk_map.file_systems})
        raise Unsupported(
            f"the image has no root file system that is known here; it has: "
            f"{', '.join(kinds) or 'nothing known'}",
            hint="give the files by user data instead",
        )
    if len(found) == 1:
        return found[0][1]
    ranked = sorted(
        found, key=lambda pair: (pair[0].type != GPT_ROOT, pair[1].label not in _ROOT_LABELS)
    )
    return next((held for _one, held in ranked if has_etc(held)), ranked[0][1])


def mount_table(
    fstab: str | None, root: FileSystem, disk_map: DiskMap, kinds: Iterable[Kind] = _MOUNTABLE
) -> Mapping[str, FileSystem]:
    """What is mounted where: the root, and what its fstab names on this disk.

    Args:
        fstab: The text of the root's /etc/fstab; None where there is none.
        root: The root file system.
        disk_map: The disk's layout.
        kinds: What the access method can read; the others are left out.
    """
    mounts = {"/": root}
    known = frozenset(kinds)
    for line in read_fstab(fstab or "")[0]:
        point = PurePosixPath(line.point)
        partition = partition_of(line.source, disk_map)
        held = partition.holds if partition else None
        if held is None or held is root or held.kind not in known:
            continue
        if ".." not in point.parts and point != PurePosixPath("/"):
            mounts[str(point)] = held
    return dict(sorted(mounts.items()))

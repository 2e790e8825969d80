"""The layers of a guest's root disk: qcow2 files in its directory, each on the one below it.

The lowest is `disk.qcow2`, on the image's base in the cache; a snapshot puts a layer on top, a
deleted one is merged into the layer below it. Only files of the guest's own directory are
ever written: the base is shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lxml import etree

from blocks import changes
from blocks.errors import Conflict, HostFault
from blocks.hypervisor.disk_chain import backing_chain
from blocks.hypervisor.domain_xml import describe_source
from blocks.hypervisor.guest import DiskSpec
from blocks.hypervisor.instance_dirs import DISK, owner_of
from blocks.images import qemu_img
from blocks.images.files import part_of, replacing, sync_directory
from blocks.resources import ImageFormat

#: The root disk's device in every guest of ours (`specify`).
ROOT_ALIAS = "ua-root"


def layers_in(directory: Path) -> list[Path]:
    """The files of all layers in a guest's directory, the lowest first."""
    lowest = [directory / DISK] if (directory / DISK).is_file() else []
    return [*lowest, *sorted(one for one in directory.glob("disk-*.qcow2") if owner_of(one.name))]


def below(layer: Path) -> Path | None:
    """The file that a layer is on, as its header says; None where it is on none."""
    told = qemu_img.info(layer, ImageFormat.QCOW2)
    if told.backing_file is None:
        return None
    if told.backing_format not in set(ImageFormat):
        raise HostFault(f"{layer} does not say what format the file below it has")
    return Path(told.backing_file)


def above(layer: Path) -> list[Path]:
    """The layers that are on a layer."""
    return [one for one in layers_in(layer.parent) if one != layer and below(one) == layer]


def make(layer: Path, base: Path) -> None:
    """Make an empty layer on another one; there already is fine.

    Raises:
        Conflict: There is a layer of this name that is on another one.
    """
    if layer.exists():
        if below(layer) != base:
            raise Conflict(f"the layer {layer} is there, and is not on {base}")
        return
    with replacing(layer, mode=0o600) as part:
        words = qemu_img.create_overlay(base, ImageFormat.QCOW2, part)
    changes.record(f"Made the layer {layer} on {base.name}", [*words[:-1], str(layer)])


def remove(path: Path) -> None:
    """Remove a layer or memory file; already gone is fine."""
    part_of(path).unlink(missing_ok=True)
    if path.exists():
        path.unlink()
        changes.record(f"Removed {path}", ["rm", str(path)])
    _note(path).unlink(missing_ok=True)


def begin_merge(layer: Path, into: Path) -> None:
    """Check that a layer can be merged into the one below it, and note that it is.

    By the note, a merge that was stopped is gone on with: part of what is on the layer may
    be on the lower one by then, as if it had been there from the start.

    Raises:
        Conflict: Something else is on the layer below, too: it would be changed.
    """
    note = _note(layer)
    others = [one.name for one in above(into) if one != layer]
    if others and not note.exists():
        raise Conflict(f"{into.name} is below {', '.join(others)}, too")
    note.touch()
    sync_directory(layer.parent)


def merge_unused(layer: Path, into: Path) -> None:
    """Write into a layer what the one on it holds, while no guest writes either.

    Stopped at any point it can be done again: what is read of the upper one stays the same.
    """
    words = qemu_img.commit(layer)
    changes.record(f"Merged {layer.name} into {into.name}", words)


def move_up(layer: Path, into: Path) -> None:
    """Put what is on a layer that was merged on the one that it was merged into."""
    for higher in above(layer):
        words = qemu_img.rebase_unsafe(higher, into)
        changes.record(f"Put {higher.name} on {into.name}", words)


def _note(layer: Path) -> Path:
    return layer.with_name(f"{layer.name}.merging")


def chain_of(layer: Path) -> list[Path]:
    """A layer and the files below it, as their headers name them."""
    spec = DiskSpec(path=layer, format=ImageFormat.QCOW2, target="vda", alias=ROOT_ALIAS)
    return [layer, *(one.path for one in backing_chain(spec))]


def root_disk(domain: etree._Element) -> etree._Element:
    """The root disk's element in a domain's XML.

    Raises:
        HostFault: There is none.
    """
    found = _root_disk(domain)
    if found is None:
        raise HostFault("the domain has no root disk", hint="look at it with `virsh dumpxml`")
    return found


def _root_disk(domain: etree._Element) -> etree._Element | None:
    for disk in domain.findall("devices/disk"):
        alias = disk.find("alias")
        if alias is not None and alias.get("name") == ROOT_ALIAS:
            return disk
    return None


def keep_layers(wanted: etree._Element, present: etree._Element | None) -> None:
    """Have a definition name the layers that there are, whatever there was when it was composed.

    Args:
        wanted: The definition.
        present: The one that libvirt has; its layer on top holds what the guest has written.
    """
    disk = _root_disk(wanted)
    if disk is None or disk.find("source/encryption") is not None:
        return  # an encrypted disk has one layer
    told = files_of(disk)
    there = _root_disk(present) if present is not None else None
    tops = [*(files_of(there)[:1] if there is not None else ()), *told[:1]]
    top = next((path for path in tops if path.exists()), None)
    if top is not None and (top != told[0] or not all(path.exists() for path in told)):
        put_into(disk, top)


def files_of(disk: etree._Element) -> list[Path]:
    """The files of a disk's element, the one that is written first; as far as they are told."""
    found = []
    element: etree._Element | None = disk
    while element is not None:
        source = element.find("source")
        if source is None or source.get("file") is None:
            break
        found.append(Path(str(source.get("file"))))
        element = element.find("backingStore")
    return found


def put_into(disk: etree._Element, layer: Path) -> None:
    """Have a disk's element name a layer, and all that is below it."""
    spec = DiskSpec(path=layer, format=ImageFormat.QCOW2, target="vda", alias=ROOT_ALIAS)
    describe_source(disk, layer, backing_chain(spec))


def require_own(instance_id: str, layers: Sequence[Path]) -> None:
    """Check that these are files of the guest's own directory: only such are written.

    Raises:
        Conflict: One is not.
    """
    for layer in layers:
        if layer.parent.name != instance_id or layer.parent != layers[0].parent:
            raise Conflict(f"{layer} is not a layer of the guest {instance_id}")

"""Layers of a disk, made, merged and told apart, with qemu-img and without a guest."""

from __future__ import annotations

import subprocess
import uuid
from pathlib import Path

import pytest
from lxml import etree

from blocks import changes
from blocks.errors import Conflict
from blocks.hypervisor import InstanceDirectories, disk_layers
from blocks.hypervisor.instance_dirs import DISK, LAYER, layer_name, memory_name, owner_of

MIB = 1 << 20


@pytest.fixture(name="disk")
def _disk(tmp_path: Path) -> Path:
    """The lowest layer of a guest's disk, on a base that is not the guest's."""
    base, directory = tmp_path / "base.qcow2", tmp_path / str(uuid.uuid4())
    directory.mkdir()
    create = ("qemu-img", "create", "-q", "-f", "qcow2")
    subprocess.run([*create, base, "4M"], check=True)
    disk = directory / DISK
    subprocess.run([*create, "-b", base, "-F", "qcow2", disk], check=True)
    return disk


def on(layer: Path, number: int) -> Path:
    """A new layer on another one, in which the MiB of this number is its own."""
    new = layer.with_name(layer_name(str(uuid.uuid4())))
    disk_layers.make(new, layer)
    write(new, number)
    return new


def write(layer: Path, number: int) -> None:
    command = f"write -P {number} {number * MIB} {MIB}"
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", command, layer], check=True, stdout=-3)


def content(layer: Path) -> list[int]:
    """The first byte of each MiB, as a guest would read it."""
    raw = layer.with_suffix(".raw")
    subprocess.run(["qemu-img", "convert", "-O", "raw", "-f", "qcow2", layer, raw], check=True)
    data = raw.read_bytes()
    raw.unlink()
    return [data[start] for start in range(0, len(data), MIB)]


def test_a_layer_is_on_what_it_was_made_on(disk: Path) -> None:
    one = on(disk, 1)
    two = on(one, 2)
    assert disk_layers.chain_of(two)[:3] == [two, one, disk]
    assert (disk_layers.below(two), disk_layers.above(one)) == (one, [two])
    assert content(two) == [0, 1, 2, 0]
    with changes.collecting() as again:
        disk_layers.make(two, one)
    assert again == []
    with pytest.raises(Conflict, match="is not on"):
        disk_layers.make(two, disk)


def test_what_is_on_a_merged_layer_reads_as_before(disk: Path) -> None:
    one = on(disk, 1)
    upper, other = on(one, 2), on(one, 3)
    disk_layers.begin_merge(one, disk)
    disk_layers.merge_unused(one, disk)
    # Stopped when the first of the two was moved: it is gone on with.
    subprocess.run(
        ["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", disk, "-F", "qcow2", upper], check=True
    )
    disk_layers.begin_merge(one, disk)
    disk_layers.move_up(one, disk)
    disk_layers.remove(one)
    assert sorted(disk_layers.above(disk)) == sorted([upper, other])
    assert (content(upper), content(other)) == ([0, 1, 2, 0], [0, 1, 0, 3])
    assert sorted(path.name for path in disk.parent.iterdir()) == sorted(
        [DISK, upper.name, other.name]
    )


def test_what_something_else_is_on_is_not_merged_into(disk: Path) -> None:
    one, other = on(disk, 1), on(disk, 2)
    with pytest.raises(Conflict, match=other.name):
        disk_layers.begin_merge(one, disk)
    disk_layers.remove(other)
    disk_layers.begin_merge(one, disk)


def test_only_the_guests_own_files_are_written(disk: Path) -> None:
    base = disk_layers.below(disk)
    assert base is not None
    instance_id = disk.parent.name
    disk_layers.require_own(instance_id, [disk, disk.with_name("x")])
    for wrong in ([disk, base], [base, disk]):
        with pytest.raises(Conflict, match="not a layer of the guest"):
            disk_layers.require_own(instance_id, wrong)
    with pytest.raises(Conflict):
        disk_layers.require_own(str(uuid.uuid4()), [disk])


def test_a_definition_names_the_layers_that_there_are(disk: Path) -> None:
    top = on(disk, 1)

    def domain(*files: Path, inner: str = "") -> etree._Element:
        below = "".join(f"<backingStore><source file='{path}'/>" for path in files[1:])
        ends = "</backingStore>" * len(files[1:])
        xml = f"<disk><source file='{files[0]}'>{inner}</source>{below}{ends}"
        disks = f"{xml}<alias name='ua-root'/></disk>"
        return etree.fromstring(f"<domain><devices>{disks}</devices></domain>")

    def kept(wanted: etree._Element, present: etree._Element | None) -> list[Path]:
        disk_layers.keep_layers(wanted, present)
        return disk_layers.files_of(disk_layers.root_disk(wanted))

    chain = disk_layers.chain_of(top)
    gone = top.with_name("gone")
    # What libvirt has is on top of what was composed before a snapshot.
    assert kept(domain(disk), domain(top)) == chain
    # What was composed before a merge names a file that is gone.
    assert kept(domain(top, gone, disk), None) == chain
    assert kept(domain(top, gone, disk), domain(top)) == chain
    # Otherwise it stays as it is.
    assert kept(domain(*chain), domain(gone)) == chain
    assert kept(domain(disk), etree.fromstring("<domain/>")) == [disk]
    assert kept(domain(gone), None) == [gone]
    assert kept(domain(disk, inner="<encryption/>"), domain(top)) == [disk]


def test_an_inventory_tells_whose_the_files_are(tmp_path: Path) -> None:
    directories = InstanceDirectories(tmp_path, "abcd")
    vm, one, two = (str(uuid.uuid4()) for _ in range(3))
    path = tmp_path / vm
    path.mkdir()
    (path / "fifty-instance.json").write_text(f'{{"instance": "{vm}", "site": "abcd"}}')
    wanted = {layer_name(one): one, f"{layer_name(one)}.merging": one, memory_name(two): two}
    for name in (*wanted, DISK, "disk-x.qcow2", "console.log"):
        (path / name).touch()
    found = [thing for thing in directories.inventory() if thing.kind == LAYER]
    assert {Path(thing.name).name: thing.owner for thing in found} == wanted
    assert owner_of(DISK) is None
    with pytest.raises(Conflict):
        directories.remove(found[0])
    assert Path(found[0].name).exists()

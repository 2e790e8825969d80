"""Layers of a guest's disk, frozen, merged and gone back to, on a real libvirt and QEMU."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest
from lxml import etree

from blocks import changes
from blocks.errors import Conflict, Unsupported
from blocks.hypervisor import disk_layers, live_merge
from blocks.hypervisor.instance_dirs import DISK, layer_name, memory_name
from blocks.hypervisor.internal_snapshots import InternalSnapshots
from blocks.hypervisor.snapshots import Snapshots
from tests.host.hypervisor_lab import Lab, boot_sector
from tests.waiting import eventually

pytestmark = pytest.mark.host

MIB = 1 << 20


class Guest:
    """A guest that writes nothing: what its disk holds is written while it is off.

    Args:
        lab: Its files.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.id = lab.id
        self.layers = Snapshots(lab.host.connection, lab.site)
        self.internal = InternalSnapshots(lab.host.connection, lab.site)
        self.directory = lab.make_files(boot_sector("up"))
        disk = self.directory / DISK
        subprocess.run(["qemu-img", "resize", "-q", "-f", "qcow2", disk, "8M"], check=True)
        # Without its volume: that would have to be a part of internal snapshots.
        spec = lab.host.guest_spec(lab.instance, [lab.binding], [], self.directory)
        lab.host.define(lab.host.compose(spec))

    def start(self) -> None:
        self.lab.host.start_paused(self.id)
        self.lab.host.resume(self.id)

    def stop(self) -> None:
        self.lab.host.destroy(self.id)

    def new(self) -> Path:
        return self.directory / layer_name(str(uuid.uuid4()))

    def freeze(self, number: int) -> Path:
        """A layer more, in which the MiB of this number is written then; the guest is off."""
        layer = self.new()
        self.layers.freeze(self.id, layer)
        self.write(layer, number)
        return layer

    def write(self, layer: Path, number: int) -> None:
        command = f"write -P {number} {number * MIB} {MIB}"
        words = ("qemu-io", "-f", "qcow2", "-c", command, layer)
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)

    def content(self, layer: Path | None = None) -> list[int]:
        """The numbers that are written somewhere on a layer, by default on the top one."""
        raw = self.directory / "content.raw"
        words = ("qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw")
        subprocess.run([*words, layer or self.layers.top(self.id), raw], check=True)
        data = raw.read_bytes()
        raw.unlink()
        return [number for number in range(1, 8) if data[number * MIB :][:1] == bytes([number])]

    def chain(self) -> list[Path]:
        """The disk's files, as their headers tell; libvirt tells the same."""
        chain = disk_layers.chain_of(self.layers.top(self.id))
        for options in ((), ("--inactive",)):
            xml = etree.fromstring(self.lab.virsh("dumpxml", *options, self.id).encode())
            assert disk_layers.files_of(disk_layers.root_disk(xml)) == chain
        return chain[:-1]

    def domain(self) -> libvirt.virDomain:
        found: libvirt.virDomain = self.lab.host.connection.call(
            "look", lambda conn: conn.lookupByUUIDString(self.id)
        )
        return found


@pytest.fixture(name="guest")
def _guest(session_directory: Path, libvirtd: str, site: str) -> Iterator[Guest]:
    lab = Lab(session_directory / "snapshots", libvirtd, site)
    try:
        yield Guest(lab)
    finally:
        lab.clean()


def test_merged_live_and_off_nothing_is_lost(guest: Guest) -> None:
    disk = guest.directory / DISK
    one = guest.freeze(1)
    two = guest.freeze(2)
    three = guest.freeze(3)
    assert (guest.chain(), guest.content()) == ([three, two, one, disk], [1, 2, 3])
    guest.layers.melt(guest.id, two)
    assert (guest.chain(), guest.content()) == ([three, one, disk], [1, 2, 3])
    guest.start()
    guest.layers.melt(guest.id, one)
    assert guest.chain() == [three, disk]
    with changes.collecting() as again:
        guest.layers.melt(guest.id, one)
    assert again == []
    guest.layers.melt(guest.id, three)
    assert (guest.chain(), guest.content()) == ([disk], [1, 2, 3])
    assert guest.lab.host.state(guest.id) == "running"
    assert disk_layers.layers_in(guest.directory) == [disk]
    # Its base was only read.
    assert guest.content(guest.lab.base) == []


def test_two_lines_of_layers_on_one(guest: Guest) -> None:
    disk = guest.directory / DISK
    common = guest.freeze(1)
    left = guest.freeze(2)
    upper = guest.freeze(3)
    right = guest.new()
    disk_layers.make(right, common)
    guest.layers.switch(guest.id, right)
    guest.write(right, 4)
    with pytest.raises(Conflict, match=right.name):
        guest.layers.melt(guest.id, left)
    guest.start()
    with pytest.raises(Conflict, match="runs"):
        guest.layers.switch(guest.id, left)
    # Beside the guest: nothing that it reads is written.
    guest.layers.melt(guest.id, upper)
    assert not upper.exists()
    # Below both: QEMU looks after the one that it has open only. Stopped after that, it is by
    # the note that the two lines that are on the disk then are known as one and the same merge.
    disk_layers.begin_merge(common, disk)
    live_merge.begin(guest.domain(), common, disk)
    eventually(lambda: live_merge.is_over(guest.domain()), "merge of one line")
    guest.layers.melt(guest.id, common)
    assert guest.chain() == [right, disk]
    assert (guest.content(), guest.content(left)) == ([1, 4], [1, 2])
    guest.layers.melt(guest.id, left)
    guest.layers.melt(guest.id, right)
    assert (guest.chain(), guest.content()) == ([disk], [1, 4])


def test_what_was_stopped_half_way_is_gone_on_with(guest: Guest) -> None:
    disk = guest.directory / DISK
    # A layer that was made, and not put on: what it holds is nobody's.
    layer = guest.new()
    disk_layers.make(layer, disk)
    guest.write(layer, 7)
    assert guest.layers.freeze(guest.id, layer) == disk
    assert guest.content() == []
    with changes.collecting() as again:
        assert guest.layers.freeze(guest.id, layer) == disk
    assert again == []
    guest.write(layer, 1)
    # A definition that is made anew, of before the freezing, does not take it away.
    spec = guest.lab.host.guest_spec(guest.lab.instance, [guest.lab.binding], [], disk.parent)
    guest.lab.host.define(guest.lab.host.compose(spec.model_copy(update={"generation": 2})))
    assert guest.chain() == [layer, disk]
    guest.start()
    # Begun by somebody who was killed: the one on top has caught up, and waits.
    disk_layers.begin_merge(layer, disk)
    live_merge.begin(guest.domain(), layer, disk)
    guest.layers.melt(guest.id, layer)
    assert (guest.chain(), guest.content()) == ([disk], [1])
    # Begun, and QEMU died: it is done from outside.
    guest.stop()
    layer = guest.freeze(2)
    guest.start()
    disk_layers.begin_merge(layer, disk)
    live_merge.begin(guest.domain(), layer, disk)
    guest.stop()
    guest.layers.melt(guest.id, layer)
    assert (guest.chain(), guest.content()) == ([disk], [1, 2])
    assert list(guest.directory.glob("disk*")) == [disk]


def test_memory_is_kept_and_put_back(guest: Guest) -> None:
    memory = guest.directory / memory_name(str(uuid.uuid4()))
    layer = guest.new()
    for options in ({"memory": memory}, {"quiesce": True}):
        with pytest.raises(Conflict, match="is off"):
            guest.layers.freeze(guest.id, layer, **options)
    guest.start()
    with pytest.raises(Unsupported, match="no guest agent"):
        guest.layers.freeze(guest.id, layer, quiesce=True)
    frozen = guest.layers.freeze(guest.id, layer, memory=memory)
    guest.stop()
    new = guest.new()
    disk_layers.make(new, frozen)
    guest.layers.switch(guest.id, new)
    guest.layers.restore(guest.id, memory, new)
    assert guest.lab.host.state(guest.id) == "paused"
    assert guest.chain() == [new, frozen]
    guest.lab.host.resume(guest.id)
    with changes.collecting() as again:
        guest.layers.restore(guest.id, memory, new)
    assert again == []


def test_inside_of_the_file(guest: Guest) -> None:
    guest.write(guest.directory / DISK, 1)
    guest.internal.take(guest.id, "off")
    guest.write(guest.directory / DISK, 2)
    guest.start()
    guest.internal.take(guest.id, "on")
    with changes.collecting() as again:
        guest.internal.take(guest.id, "on")
    assert again == []
    # To be read meanwhile, it can be frozen and melted.
    layer = guest.new()
    guest.layers.freeze(guest.id, layer)
    guest.layers.melt(guest.id, layer)
    guest.stop()
    guest.internal.revert(guest.id, "off")
    assert (guest.lab.host.state(guest.id), guest.content()) == ("shutoff", [1])
    guest.internal.revert(guest.id, "on")
    assert (guest.lab.host.state(guest.id), guest.content()) == ("paused", [1, 2])
    for name in ("off", "on", "on"):
        guest.internal.delete(guest.id, name)
    assert guest.internal.names(guest.id) == []
    words = ("qemu-img", "info", "-U", "-f", "qcow2", guest.directory / DISK)
    told = subprocess.run(words, check=True, capture_output=True, text=True)
    assert "Snapshot list" not in told.stdout

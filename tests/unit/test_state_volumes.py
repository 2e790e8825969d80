"""Volumes in the state store: those of a new VM, and those that come and go later."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from blocks.errors import Conflict, NotFound
from blocks.hypervisor import volume_disk
from blocks.resources import Instance
from blocks.state import StateStore
from tests.unit.cli_store import Filled


@pytest.fixture(name="filled")
def _filled(tmp_path: Path) -> Filled:
    return Filled(tmp_path)


def instance(filled: Filled, name: str) -> tuple[StateStore, Instance]:
    return filled.store, filled.store.instances.get(filled.add_vm(name).id)


def test_one_more_gets_the_first_free_place_and_keeps_it(filled: Filled) -> None:
    store, vm = instance(filled, "one")
    store.volumes.plan(vm, [1, 2])
    ids = [str(uuid.uuid4()) for _ in range(2)]
    first = store.volumes.add(vm, ids[0], 3)
    assert (first.device, first.plugged, first.size_gib) == ("", False, 3)
    assert store.volumes.set_device(ids[0], plugged=True).device == "vdd"
    assert store.volumes.add(vm, ids[0], 3).device == "vdd"
    gone = store.volumes.of(vm.id)[0]
    assert gone.device == "vdb"
    assert (store.volumes.remove(gone.id), store.volumes.remove(gone.id)) == (True, False)
    store.volumes.add(vm, ids[1], 1)
    assert store.volumes.set_device(ids[1], plugged=True).device == "vdb"
    # Out and in again it has the same name in the guest.
    assert not store.volumes.set_device(ids[0], plugged=False).plugged
    assert store.volumes.set_device(ids[0], plugged=True).device == "vdd"


def test_an_id_is_one_volume_of_one_vm(filled: Filled) -> None:
    store, vm = instance(filled, "one")
    other = vm.model_copy(update={"id": str(uuid.uuid4())})
    volume_id = str(uuid.uuid4())
    store.volumes.add(vm, volume_id, 1)
    for taken in ((vm, 2), (other, 1)):
        with pytest.raises(Conflict, match="another volume"):
            store.volumes.add(taken[0], volume_id, taken[1])
    with pytest.raises(NotFound):
        store.volumes.set_device(str(uuid.uuid4()), plugged=True)


def test_there_are_sixteen_at_most(filled: Filled) -> None:
    store, vm = instance(filled, "one")
    store.volumes.plan(vm, [1] * 15)
    last = str(uuid.uuid4())
    store.volumes.add(vm, last, 1)
    assert store.volumes.set_device(last, plugged=True).device == "vdq"
    with pytest.raises(Conflict, match="16 volumes"):
        store.volumes.add(vm, str(uuid.uuid4()), 1)


def test_a_volume_is_a_disk_that_the_guest_finds_by_its_serial_number(filled: Filled) -> None:
    store, vm = instance(filled, "one")
    volume = store.volumes.add(vm, str(uuid.uuid4()), 1)
    with pytest.raises(Conflict, match="no path"):
        volume_disk(volume)
    store.volumes.set_path(volume.id, "/pool/v.qcow2")
    disk = volume_disk(store.volumes.set_device(volume.id, plugged=True))
    assert (disk.target, disk.serial) == ("vdb", volume.id[:20])
    assert disk.alias == f"ua-volume-{volume.id}"

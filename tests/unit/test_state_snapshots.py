"""Snapshots in the state store: one at a time is worked on, and each knows where it comes from."""

from __future__ import annotations

import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from blocks.errors import Conflict, NotFound, Unsupported
from blocks.resources import Snapshot, SnapshotRequest
from blocks.state import StateStore
from blocks.state.snapshots import MOST_SNAPSHOTS
from blocks.state.tables.base import now
from tasks.snapshot_take import refuse_what_cannot_be
from tests.unit.cli_store import Filled


@pytest.fixture(name="filled")
def _filled(tmp_path: Path) -> Filled:
    return Filled(tmp_path)


class Taker:
    """Takes snapshots of one VM, each a minute after the one before."""

    def __init__(self, filled: Filled) -> None:
        self.store: StateStore = filled.store
        self.vm = str(uuid.uuid4())
        self._tenant = filled.tenant
        self._time = now()

    def record(self, name: str, **fields: Any) -> Snapshot:  # noqa: ANN401
        self._time += timedelta(minutes=1)
        own = {"kind": "external", "frozen": f"{name}.qcow2", **fields}
        return self.store.snapshots.record(
            Snapshot(
                id=str(uuid.uuid4()),
                tenant_id=self._tenant,
                instance_id=self.vm,
                name=name,
                created_at=self._time,
                **own,
            )
        )

    def take(self, name: str, **fields: Any) -> str:  # noqa: ANN401
        made = self.record(name, **fields)
        self.store.snapshots.make_available(made.id, made.id, current=True)
        return made.id

    def current(self) -> list[str]:
        return [one.name for one in self.store.snapshots.of(self.vm) if one.current]


def test_what_is_recorded_is_read_back(filled: Filled) -> None:
    taker = Taker(filled)
    fields: dict[str, Any] = {"memory": True, "interfaces": {"fa:16:3e:00:00:01": "tap1"}}
    made = taker.record("one", **fields)
    assert (made.status, made.memory, made.interfaces) == ("creating", True, fields["interfaces"])
    assert taker.store.snapshots.find(taker.vm, "one") == made
    assert taker.store.snapshots.find(taker.vm, made.id) == made
    assert taker.store.snapshots.record(made) == made
    with pytest.raises(NotFound, match="there are: one"):
        taker.store.snapshots.find(taker.vm, "two")


def open_build(store: StateStore, build_id: str, catalogue: str = "revert") -> None:
    store.builds.open(
        build_id=build_id,
        catalogue=catalogue,
        name=build_id,
        credentials="default",
        request={},
        request_id=build_id,
        flow_run_id=None,
        policy="rollback",
    )


def test_one_at_a_time(filled: Filled) -> None:
    taker, other = Taker(filled), Taker(filled)
    store, snapshots = taker.store, taker.store.snapshots
    one = taker.take("one")
    two = taker.record("two")
    open_build(store, two.id, "snapshot")
    for build_id in ("first", "second"):
        open_build(store, build_id)
    with pytest.raises(Conflict, match="'two' is creating"):
        taker.record("three")
    for each in (one, two.id):
        with pytest.raises(Conflict, match="'two' is creating"):
            snapshots.claim(each, "reverting", "first")
    other.take("three")
    snapshots.make_available(two.id, two.id)
    snapshots.claim(one, "reverting", "first")
    snapshots.claim(one, "reverting", "first")
    for each in (one, two.id):
        with pytest.raises(Conflict, match="'one' is reverting"):
            snapshots.claim(each, "reverting", "second")
    # Who has no claim takes none away.
    snapshots.make_available(one, "second")
    assert snapshots.get(one).status == "reverting"
    # What could not be undone is mended by another revert, and not tried again.
    store.builds.update("first", state="needs_attention")
    snapshots.claim(one, "reverting", "second")
    assert store.builds.get("first").state == "undone"
    # What is over has no claim any more.
    store.builds.update("second", state="undone")
    snapshots.claim(one, "reverting", "first")
    # But a merge that stopped half way is ended by itself only.
    snapshots.make_available(one, "first")
    snapshots.claim(two.id, "deleting", two.id)
    store.builds.update(two.id, state="needs_attention")
    with pytest.raises(Conflict, match="'two' is deleting"):
        snapshots.claim(two.id, "reverting", "second")


def test_names_kinds_and_numbers(filled: Filled) -> None:
    taker = Taker(filled)
    taker.take("n0")
    with pytest.raises(Conflict, match="'n0' already"):
        taker.record("n0")
    with pytest.raises(Conflict, match="of the other kind: n0"):
        taker.record("inside", kind="internal", frozen=None)
    for number in range(1, MOST_SNAPSHOTS):
        taker.take(f"n{number}")
    with pytest.raises(Conflict, match="more are not possible"):
        taker.record("more")
    Taker(filled).take("n0")


def test_where_each_comes_from(filled: Filled) -> None:
    taker = Taker(filled)
    snapshots = taker.store.snapshots
    one, two, three = (taker.take(name) for name in ("one", "two", "three"))
    assert [each.parent_id for each in snapshots.of(taker.vm)] == [None, one, two]
    assert taker.current() == ["three"]
    snapshots.make_available(one, one, current=True)
    assert taker.current() == ["one"]
    snapshots.make_available(three, three, current=True)
    snapshots.forget(two)
    assert snapshots.get(three).parent_id == one
    snapshots.forget(three)
    snapshots.forget(three)
    assert taker.current() == ["one"]
    snapshots.move(taker.vm, "one.qcow2", "disk.qcow2")
    assert snapshots.get(one).frozen == "disk.qcow2"


def test_with_the_vm_all_of_it_is_forgotten(filled: Filled) -> None:
    taker, other = Taker(filled), Taker(filled)
    store = taker.store
    kept = other.take("kept")
    plans = {"mine": taker.vm, "others": other.vm}
    for name, vm in plans.items():
        open_build(store, name)
        store.builds.note(name, instance=vm)
    taker.take("one")
    store.snapshots.forget_all(taker.vm)
    assert store.snapshots.of(taker.vm) == []
    assert store.snapshots.get(kept)
    assert {name: store.builds.get(name).state for name in plans} == {
        "mine": "deleted",
        "others": "building",
    }


@pytest.mark.parametrize("wrong", [{"memory": True}, {"kind": "internal"}])
def test_quiescing_is_for_the_disk_alone(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="quiesce is for"):
        SnapshotRequest.model_validate({"vm": "a", "name": "b", "quiesce": True, **wrong})


def test_what_cannot_be_is_refused(filled: Filled) -> None:
    store = filled.store
    vm = filled.add_vm("web")
    build = store.builds.get(vm.id)

    def refuse(*, running: bool = True, **fields: Any) -> None:  # noqa: ANN401
        request = SnapshotRequest(vm="web", name="one", **fields)
        memory = running if request.kind == "internal" else request.memory
        refuse_what_cannot_be(store, build, request, running=running, memory=memory)

    possible: tuple[dict[str, Any], ...] = ({}, {"memory": True}, {"quiesce": True})
    for fields in (*possible, {"kind": "internal"}):
        refuse(**fields)
    refuse(running=False, kind="internal")
    for fields in possible[1:]:
        with pytest.raises(Conflict, match="is off"):
            refuse(running=False, **fields)
    store.volumes.plan(vm, [1])
    refuse()
    refuse(quiesce=True)
    with pytest.raises(Unsupported, match="1 volume"):
        refuse(memory=True)
    for running in (True, False):
        with pytest.raises(Unsupported, match="1 volume"):
            refuse(running=running, kind="internal")
    store.images.change(vm.image_id, encrypted=True, passphrase_secret="disk")
    with pytest.raises(Unsupported, match="encrypted"):
        refuse()

"""What an audit is made of: ages, and what the state store gave out to nobody."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from pathlib import Path

import pytest

from blocks import ages
from blocks.ages import Sightings
from blocks.inventory import Found
from blocks.resources import Host, InstanceStatus
from blocks.state import StateStore
from blocks.state.tables import LeaseRow
from tests.unit.cli_store import Filled


def test_a_thing_is_as_old_as_it_was_seen_without_a_break(tmp_path: Path) -> None:
    file = tmp_path / "book.json"
    assert Sightings(file).look(["a", "b"]) == {"a": 0.0, "b": 0.0}
    first = Sightings(file).look(["a"])["a"]
    assert first > 0
    assert Sightings(file).look(["a"])["a"] > first
    assert Sightings(file).look(["b"]) == {"b": 0.0}, "it was away: this is another one"
    assert Sightings(file).look(["a"]) == {"a": 0.0}


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"boot": "x", "seen": {"a": 1}}', '{"seen": 1}']
)
def test_a_book_that_says_nothing_makes_everything_new(tmp_path: Path, content: str) -> None:
    file = tmp_path / "book.json"
    file.write_text(content)
    assert Sightings(file).look(["a"]) == {"a": 0.0}


def test_files_and_processes_tell_their_age(tmp_path: Path) -> None:
    assert ages.of_file(tmp_path / "none") is None
    file = tmp_path / "file"
    file.touch()
    os.utime(file, (0, 0))
    age = ages.of_file(file)
    assert age is not None
    assert age < 600, "what touch(1) sets does not count"
    mine, parents = ages.of_process(os.getpid()), ages.of_process(1)
    assert mine is not None
    assert parents is not None
    assert 0 <= mine <= parents
    with subprocess.Popen(["true"]) as ended:
        pass
    assert ages.of_process(ended.pid) is None


@pytest.fixture(name="filled")
def _filled(tmp_path: Path) -> Filled:
    return Filled(tmp_path)


def hold(store: StateStore, owner: str, tenant: str) -> None:
    """Give something of each kind to an owner that has a port already."""
    store.hosts.report(Host(name="here", vcpus=8, ram_mib=8192, disk_gib=100, features={}))
    store.hosts.claim(owner, "here", {"vcpus": 1, "ram_mib": 256, "disk_gib": 1})
    store.quota.reserve(tenant, owner, {"instances": 1, "cores": 1})
    store.volumes.plan(store.instances.get(owner), [1])


def kinds(found: list[Found], owner: str) -> list[tuple[str, str]]:
    return sorted((one.kind, one.name) for one in found if one.owner == owner)


def test_what_is_given_out_to_what_is_gone_is_found_and_taken_back(filled: Filled) -> None:
    store = filled.store
    lives, gone = filled.add_vm("lives"), filled.add_vm("gone", address="10.0.0.8")
    for vm in (lives, gone):
        hold(store, vm.id, filled.tenant)
    building = filled.add_build("building")
    store.quota.reserve(filled.tenant, building.id, {"instances": 1})
    assert store.allocations.inventory() == []

    store.builds.update(lives.id, state="complete")
    store.instances.set_status(gone.id, InstanceStatus.DELETING)
    store.builds.update(gone.id, state="deleting")
    assert store.allocations.inventory() == [], "it is being deleted: its undos give all back"
    store.instances.set_status(gone.id, InstanceStatus.DELETED)
    store.builds.update(gone.id, state="deleted")
    found = store.allocations.inventory()
    [port] = store.ports.of_device(gone.id)
    [volume] = store.volumes.of(gone.id)
    assert kinds(found, gone.id) == [
        ("claim", "here"),
        ("port record", port.id),
        ("quota claim", "cores"),
        ("quota claim", "instances"),
        ("volume record", volume.id),
    ]
    assert len(found) == 5
    assert all(one.age_s is not None and one.age_s >= 0 for one in found)

    # By the time of its removal somebody may want it.
    store.builds.update(gone.id, state="building")
    for one in found:
        store.allocations.remove(one)
    assert store.ports.of_device(gone.id) == [port]
    store.builds.update(gone.id, state="undone")
    for one in [*found, *found]:
        store.allocations.remove(one)
    assert store.allocations.inventory() == []
    assert (store.ports.of_device(gone.id), store.volumes.of(gone.id)) == ([], [])
    assert (store.hosts.claim_of(gone.id), store.quota.held(gone.id)) == (None, {})
    assert store.hosts.claim_of(lives.id) is not None
    assert set(store.quota.held(building.id)) == {"instances"}
    assert len(store.ports.of_device(lives.id)) == len(store.volumes.of(lives.id)) == 1


def test_a_dead_lease_counts_where_no_run_is_to_come(filled: Filled) -> None:
    store, build = filled.store, filled.add_build("b")
    token = store.leases.acquire(build.id, "create")
    store.builds.update(build.id, state="complete")
    assert store.allocations.inventory() == [], "it is alive"
    with store.database.write() as session:
        session.get_one(LeaseRow, build.id).boot_id = str(uuid.uuid4())
    [found] = store.allocations.inventory()
    assert (found.kind, found.name, found.owner) == ("lease", "create", build.id)
    store.builds.update(build.id, state="building")
    assert store.allocations.inventory() == [], "reconcile takes it over"
    store.builds.update(build.id, state="undone")
    store.allocations.remove(found)
    assert store.allocations.inventory() == []
    assert not store.leases.renew(build.id, token)


def test_the_book_is_json_and_whole(tmp_path: Path) -> None:
    file = tmp_path / "book.json"
    Sightings(file).look(["a"])
    assert set(json.loads(file.read_text())["seen"]) == {"a"}
    assert [path.name for path in tmp_path.iterdir()] == ["book.json"]

"""`fifty audit`: what is astray is found and removed; all else is left exactly as it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import uuid
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, or_

from blocks import marks
from blocks.commands import run
from blocks.resources import PortKind
from blocks.state import StateStore, StepState
from blocks.state.tables import (
    BuildRow,
    ImageRow,
    InstanceRow,
    LeaseRow,
    NetworkRow,
    PortRow,
    RouterRow,
    SegmentRow,
    SubnetRow,
)
from blocks.state.tables.base import now
from tasks.audit import audit as look
from tests.cloud import Cloud
from tests.e2e import lookalikes
from tests.inventory import differences
from tests.waiting import eventually

pytestmark = pytest.mark.e2e

CREATE = ("vm", "create", "--image", "micro", "--network", "lab")
ASTRAY, REMOVED = 3, 4


@pytest.fixture(autouse=True)
def _grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIFTY_AUDIT_GRACE", "0")


def audit(cloud: Cloud, *words: str, code: int = 0) -> dict[str, Any]:
    document: dict[str, Any] = cloud.json("audit", *words, code=code)
    return document


def by_kind(document: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    found = defaultdict(list)
    for thing in document["astray"]:
        found[thing["kind"]].append(thing)
    return found


@contextmanager
def audited(cloud: Cloud) -> Iterator[None]:
    """Audit again and again while things come and go: at no time anything is astray."""
    over = threading.Event()

    def watch() -> list[Any]:
        astray, rounds = [], 0
        while not over.wait(0.1):
            astray += look(cloud.world).astray
            rounds += 1
        assert rounds > 5
        return astray

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        try:
            yield
        finally:
            over.set()
        assert watching.result() == []


def forget_vm(store: StateStore, vm_id: str) -> None:
    """Remove the rows that say that there is a VM; what it holds stays recorded."""
    with store.database.write() as session:
        session.execute(delete(InstanceRow).where(InstanceRow.id == vm_id))
        session.execute(delete(BuildRow).where(BuildRow.id == vm_id))


def forget_network(store: StateStore, network_id: str, router_id: str) -> None:
    """Remove all rows of a network and of its router."""
    with store.database.write() as session:
        mine = or_(PortRow.network_id == network_id, PortRow.device_id == router_id)
        session.execute(delete(PortRow).where(mine))
        for table in (SubnetRow, SegmentRow):
            session.execute(delete(table).where(table.network_id == network_id))
        session.execute(delete(NetworkRow).where(NetworkRow.id == network_id))
        session.execute(delete(RouterRow).where(RouterRow.id == router_id))
        session.execute(delete(BuildRow).where(BuildRow.id == network_id))


def make_small_strays(cloud: Cloud) -> dict[str, str]:
    """One of each kind that a VM or network does not have by itself; its owner, by its kind."""
    images = cloud.home / "images"
    build, part, image, export, far, lease = (str(uuid.uuid4()) for _ in range(6))
    (images / "build" / build / "mnt").mkdir(parents=True)
    raw = images / "build" / build / "disk.raw"
    raw.write_bytes(bytes(1 << 20))
    run("losetup", "--find", raw)
    run("mount", "-t", "tmpfs", "none", raw.with_name("mnt"))
    (images / "store" / f"{part}.qcow2.part").touch()
    (images / "store" / f"{image}.qcow2").touch()
    folder = images / "exports" / "0123456789abcdef"
    folder.mkdir(parents=True)
    (folder / "disk").write_text(str(cloud.home / "instances" / export / "disk.qcow2"))
    run("nft", f"add table ip {marks.firewall_table(cloud.world.site)}_{far}")
    with cloud.world.store.database.write() as session:
        row = LeaseRow(build_id=lease, token="t", purpose="create", host=cloud.world.store.host)
        row.pid, row.pid_started, row.boot_id, row.expires_at = 1, 0, "another boot", now()
        session.add(row)
    return {
        "image-build": build,
        "loop": build,
        "mount": build,
        "image-part": part,
        "image-file": image,
        "fuse-export": export,
        "nft": far,
        "lease": lease,
    }


def test_strays_of_every_kind_are_removed_and_what_only_looks_like_them_is_not(
    cloud: Cloud,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    store = cloud.world.store
    request.addfinalizer(lambda: cloud.run("audit", "--fix"))
    with lookalikes.beside(cloud.home, cloud.world.site, tmp_path) as others:
        before, looked = cloud.inventory(), others.seen()
        assert audit(cloud, "--fix")["astray"] == []
        stray = cloud.json(*CREATE, "stray", "--flavor", "limited", "--volume", "1")
        words = ("--cidr", "10.77.8.0/24", "--router", "astray", "--external-network", "external")
        network = cloud.json("network", "create", "astray", *words)["id"]
        router = cloud.json("router", "show", "astray")["id"]
        port, volume = stray["addresses"][0]["port_id"], stray["volumes"][0]["id"]
        [dhcp] = store.ports.list(kind=PortKind.DHCP, network_id=network)
        legs = {leg.id for leg in store.ports.of_device(router)}
        assert audit(cloud)["clean"]
        forget_vm(store, stray["id"])
        forget_network(store, network, router)
        small = make_small_strays(cloud)
        all_of_it = cloud.inventory()

        dry = audit(cloud, code=ASTRAY)
        assert differences(all_of_it, cloud.inventory()) == [], "a dry audit changes nothing"
        found = by_kind(dry)
        expected = {
            "domain": {stray["id"]},
            "directory": {stray["id"], network},
            "file": {volume},
            "link": {port, stray["id"], network, dhcp.id, *legs},
            "nft": {port, small["nft"]},
            "namespace": {network, router},
            "process": {stray["id"], network},
            "reservation": {port},
            "metadata": {port},
            "port record": {stray["id"]},
            "claim": {stray["id"]},
            "quota claim": {stray["id"]},
            "volume record": {stray["id"]},
            **{kind: {owner} for kind, owner in small.items() if kind != "nft"},
        }
        owners = {kind: {thing["owner"] for thing in things} for kind, things in found.items()}
        assert owners == expected
        names = {thing["name"] for thing in found["process"]}
        assert names == {"qemu", "dnsmasq", "metadata"}
        for thing in dry["astray"]:
            assert thing["age_s"] >= 0, thing
            assert "nothing" in thing["why"], thing
            assert "own" in thing["why"], thing
        assert {thing["name"] for thing in found["domain"]} == {
            marks.domain_name(stray["id"], "stray")
        }

        monkeypatch.setenv("FIFTY_AUDIT_GRACE", "3600")
        young = audit(cloud, "--fix", code=ASTRAY)
        assert len(young["failed"]) == len(young["astray"]) == len(dry["astray"])
        assert all("younger than the 3600 s" in line for line in young["failed"])
        assert differences(all_of_it, cloud.inventory()) == []
        links = {thing["name"]: thing["age_s"] for thing in by_kind(dry)["link"]}
        for thing in by_kind(young)["link"]:
            assert thing["age_s"] > links[thing["name"]], "it is known since the first audit"

        monkeypatch.setenv("FIFTY_AUDIT_GRACE", "0")
        fixed = audit(cloud, "--fix", code=REMOVED)
        assert fixed["fixed"]
        assert len(fixed["removed"]) == len(dry["astray"])
        assert differences(before, cloud.inventory()) == []
        assert not list((cloud.home / "images" / "store").glob(f"{small['image-file']}*"))
        assert "Nothing is astray." in cloud.fifty("audit")
        assert others.seen() == looked
        # Its address can be leased to the next one: dnsmasq would keep it for an hour.
        leases = cloud.home / "networks" / stray["addresses"][0]["network_id"] / "dhcp" / "leases"
        eventually(lambda: address(stray) not in leases.read_text().split(), "free address", 30)


def address(vm: dict[str, Any]) -> str:
    return str(vm["addresses"][0]["address"])


def test_what_is_recorded_and_not_there_is_told_with_what_mends_it(cloud: Cloud) -> None:
    before = cloud.inventory()
    words = ("--image", "micro", "--network", "thin", "--volume", "1")
    with audited(cloud):
        network = cloud.json(
            "network", "create", "thin", "--cidr", "10.77.8.0/24", "--router", "thin"
        )
        vm = cloud.json("vm", "create", "thin", *words)
    world, [port] = cloud.world, cloud.ports("thin")
    router = cloud.json("router", "show", "thin")["id"]
    image = world.store.images.find(vm["tenant_id"], "micro")
    gone = image.model_copy(
        update={"id": str(uuid.uuid4()), "name": "gone", "path": f"{image.path}.gone"}
    )
    assert audit(cloud)["clean"]

    world.store.images.put(gone)
    recorded = {
        part.identity for part in world.fabric.parts_of_router(world.store.routers.get(router))
    }
    for each in (world.hypervisor, world.pool, world.directories, world.fabric):
        for thing in each.inventory():
            if (
                thing.owner in (vm["id"], port.id, network["id"], router)
                or volume_of(vm) == thing.owner
            ):
                recorded.add(thing.identity)
                each.remove(thing)
    told = audit(cloud, code=ASTRAY)
    missing = {(thing["kind"], thing["name"], thing["owner"]): thing for thing in told["astray"]}
    directory = cloud.home / "instances" / vm["id"]
    assert {(kind, name) for kind, name, _owner in missing} >= {
        ("domain", marks.domain_name(vm["id"], "thin")),
        ("process", "qemu"),
        ("directory", str(directory)),
        ("file", str(directory / "disk.qcow2")),
        ("file", str(directory / "config.iso")),
        ("file", str(cloud.home / "volumes" / f"{volume_of(vm)}.qcow2")),
        ("link", port.tap),
        ("nft", f"{marks.firewall_table(world.site)} {port.id}"),
        ("link", marks.bridge_name(network["id"])),
        ("link", marks.vxlan_name(network["id"])),
        ("namespace", marks.dhcp_namespace(network["id"])),
        ("process", "dnsmasq"),
        ("process", "metadata"),
        ("namespace", marks.router_namespace(router)),
        ("image-file", gone.path),
    }
    assert {kind for kind, _name, _owner in missing} >= {"reservation", "metadata"}
    for thing in told["astray"]:
        assert thing["age_s"] is None, thing
        assert "not on the host, but a part of" in thing["why"], thing
        assert "`fifty " in thing["why"], thing
    assert audit(cloud, "--fix", code=ASTRAY)["removed"] == []
    with world.store.database.write() as session:
        session.execute(delete(ImageRow).where(ImageRow.id == gone.id))

    # What mends it, as it said.
    cloud.fifty("vm", "delete", "thin")
    cloud.fifty("network", "delete", "thin")
    cloud.fifty("router", "delete", "thin")
    assert audit(cloud)["clean"]
    assert differences(before, cloud.inventory()) == []


def volume_of(vm: dict[str, Any]) -> str:
    return str(vm["volumes"][0]["id"])


@pytest.fixture(name="hanging")
def _hanging(cloud: Cloud) -> Iterator[subprocess.Popen[bytes]]:
    """A build `hanging` that hangs when its domain is there."""
    fifty = str(Path(sys.executable).with_name("fifty"))
    process = subprocess.Popen(
        [fifty, *CREATE, "hanging", "--volume", "1", "--on-interrupt", "rollback"],
        env=cloud.environment("45:hang"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    yield process
    process.kill()
    process.wait()


def test_a_build_that_is_under_way_is_left_alone_alive_or_stopped(
    cloud: Cloud, hanging: subprocess.Popen[bytes]
) -> None:
    def hangs() -> bool:
        if not any(vm.name == "hanging" for vm in cloud.world.store.instances.list()):
            return False
        entry = cloud.journal(cloud.build("hanging")).get(45)
        return entry is not None and entry.state is StepState.RUNNING

    eventually(hangs, "build that hangs at step 45")
    there = cloud.inventory()
    assert any("-hanging" in name for name in there["domains"])
    alive = audit(cloud, "--fix")
    assert (alive["astray"], alive["stopped"]) == ([], [])
    assert differences(there, cloud.inventory()) == []
    shown = cloud.json("vm", "show", "hanging")["build"]
    assert (shown["state"], shown["step"], shown["run"]) == ("running", 45, "create")

    hanging.send_signal(signal.SIGKILL)
    assert hanging.wait() == -signal.SIGKILL
    stopped = audit(cloud, "--fix")
    assert stopped["astray"] == []
    assert stopped["stopped"] == ["the vm hanging has stopped while building"]
    assert "`fifty reconcile` brings it to an end" in cloud.fifty("audit")
    assert differences(there, cloud.inventory()) == []
    shown = cloud.json("vm", "show", "hanging")["build"]
    assert (shown["state"], shown["step"]) == ("stopped", 45)
    assert set(shown["next"]) == {"resume", "rollback"}

    cloud.fifty("reconcile")
    assert cloud.json("vm", "show", "hanging")["build"] is None
    assert audit(cloud)["stopped"] == []


def test_what_an_undo_left_is_told_and_left_to_the_rollback(cloud: Cloud) -> None:
    before = cloud.inventory()
    words = (*CREATE, "halfway", "--volume", "1")
    cloud.fifty(*words, fault="45:raise,u36:raise,u39:raise", code=1)
    shown = cloud.json("vm", "show", "halfway")
    assert shown["status"] == "NEEDS_ATTENTION"
    left = shown["build"]
    assert (left["state"], left["step"]) == ("needs_attention", 45)
    assert [item["step"] for item in left["made"]] == [36, 39]
    for item in left["made"]:
        assert item["state"] == "undo_failed"
        assert f"injected fault before step u{item['step']}" in item["error"]["message"]
    assert "Created the tuntap device" in left["made"][0]["what"][0]
    assert left["next"] == {"rollback": "fifty vm rollback halfway"}
    told = cloud.fifty("vm", "show", "halfway")
    assert "and an undo failed.\nWhat is left:\n  36 · Plug the tap device\n" in told
    assert "fifty vm rollback halfway    undo it" in told

    there = cloud.inventory()
    astray = audit(cloud, "--fix", code=ASTRAY)["astray"]
    assert {thing["kind"] for thing in astray} == {"link", "file"}
    assert all("`fifty vm rollback halfway` tries again" in thing["why"] for thing in astray)
    assert differences(there, cloud.inventory()) == []

    cloud.fifty("vm", "rollback", "halfway")
    assert differences(before, cloud.inventory()) == []
    assert audit(cloud)["clean"]


def test_what_an_undo_left_at_an_address_is_not_taken_for_its_next_owners(cloud: Cloud) -> None:
    before = cloud.inventory()
    cloud.fifty(*CREATE, "former", fault="36:raise,u35:raise", code=1)
    [left] = audit(cloud, code=ASTRAY)["astray"]
    assert left["kind"] == "metadata"
    assert "`fifty vm rollback former` tries again" in left["why"]

    vm = cloud.json(*CREATE, "next")
    assert Path(left["name"]).name == address(vm), "the address was given on"
    told = (Path(left["name"]) / "meta_data.json").read_text()
    assert vm["id"] in told
    assert audit(cloud)["clean"]

    cloud.fifty("vm", "rollback", "former")
    assert (Path(left["name"]) / "meta_data.json").read_text() == told
    assert audit(cloud)["clean"]
    cloud.fifty("vm", "delete", "next")
    assert differences(before, cloud.inventory()) == []


def test_a_failure_that_is_kept_can_be_looked_at_then_gone_on_with_or_undone(cloud: Cloud) -> None:
    words = (*CREATE, "--on-failure", "keep")
    cloud.fifty(*words, "goes-on", fault="49:raise", code=1)
    cloud.fifty(*words, "goes-back", fault="45:raise", code=1)
    shown = cloud.json("vm", "show", "goes-on")
    assert shown["status"] == "ERROR"
    assert shown["fault"]["message"] == "injected fault before step 49"
    build = shown["build"]
    assert (build["state"], build["step"]) == ("kept", 49)
    assert build["step_title"] == "Wait for the guest to be ready"
    assert build["next"] == {
        "resume": "fifty vm resume goes-on",
        "rollback": "fifty vm rollback goes-on",
    }
    made = {item["step"]: " ".join(item["what"]) for item in build["made"]}
    assert address(shown) in made[21]
    assert str(cloud.home / "instances" / shown["id"]) in made[25]
    assert shown["addresses"][0]["tap"] in made[36]
    assert marks.domain_name(shown["id"], "goes-on") in made[42]
    told = cloud.fifty("vm", "show", "goes-on")
    assert "It stopped at step 49 (Wait for the guest to be ready), and is kept" in told
    assert "fault at step 49: injected fault before step 49" in told
    assert all(line in told for line in build["next"].values())
    assert "goes-on" in cloud.ssh("goes-on", "hostname"), "its guest runs, to be looked at"
    assert audit(cloud)["clean"]

    there = cloud.inventory()
    with audited(cloud):
        assert cloud.json("vm", "resume", "goes-on")["status"] == "ACTIVE"
        cloud.fifty("vm", "rollback", "goes-back")
        cloud.fifty("network", "create", "comes", "--cidr", "10.77.8.0/24", "--router", "comes")
        cloud.fifty("network", "delete", "comes")
        cloud.fifty("router", "delete", "comes")
    assert cloud.json("vm", "show", "goes-on")["build"] is None
    assert cloud.json("vm", "show", "goes-back")["build"] is None
    gone = differences(there, cloud.inventory())
    assert gone
    assert all(" - " in line for line in gone if not line.startswith("nft"))
    assert audit(cloud)["clean"]


def test_a_build_that_stopped_before_there_was_a_vm_is_shown_without_prefect(
    cloud: Cloud, request: pytest.FixtureRequest
) -> None:
    assert cloud.run(*CREATE, "early", fault="9:kill:after").returncode == -signal.SIGKILL
    # Not a VM yet, so that the fixture would not know of it.
    request.addfinalizer(lambda: cloud.fifty("vm", "rollback", "early"))
    shown = cloud.json("vm", "show", "early")
    assert (shown["status"], shown["build"]["state"]) == ("BUILD", "stopped")
    assert (shown["build"]["step"], shown["addresses"]) == (9, [])
    script = (
        "import sys; from deployments.cli.app import run; code = run(['vm', 'show', 'early']); "
        "sys.exit(code or ('prefect' in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    assert "It stopped at step 9 (Reserve quota) while building" in done.stdout
    assert "fifty vm resume early" in done.stdout

"""After a reboot of the host, and where something of a site ends without one.

The site is the session's, with whatever other tests have on it: all of it goes, and all of
it must be back.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from blocks.marks import outside_namespace, router_namespace
from tests.cloud import Cloud
from tests.inventory import differences
from tests.reboot import reboot
from tests.service.served import Served
from tests.waiting import eventually

pytestmark = pytest.mark.e2e

CREATE = ("--image", "micro", "--network", "lab")
_BOOT = "cat /proc/sys/kernel/random/boot_id"
_READ = "cat /root/kept; dd if=/dev/vdb bs=16 count=1 2>/dev/null"
_WRITE = "echo on-disk > /root/kept; printf %-16s on-volume | dd of=/dev/vdb 2>/dev/null; sync"


@pytest.fixture(scope="module")
def stays(site_cloud: Cloud) -> Iterator[Cloud]:
    """A VM `stays`, in two networks, with something written to its disk and to its volume."""
    words = ("vm", "create", "stays", *CREATE, "--network", "side", "--volume", "1")
    site_cloud.fifty(*words)
    site_cloud.ssh("stays", _WRITE)
    yield site_cloud
    site_cloud.fifty("vm", "delete", "stays")


def show(cloud: Cloud, name: str) -> dict[str, Any]:
    """What `fifty vm show` says."""
    found: dict[str, Any] = cloud.json("vm", "show", name)
    return found


def reconciled(cloud: Cloud, *, fault: str = "", code: int = 0) -> dict[str, tuple[str, str]]:
    """Reconcile; how each thing was, and how its build stands now, by its name."""
    document = cloud.json("reconcile", fault=fault, code=code)
    return {item["name"]: (item["stopped_while"], item["state"]) for item in document["reconciled"]}


def as_it_is(cloud: Cloud) -> dict[str, Any]:
    """What there is to say about `stays`, running."""
    return {**show(cloud, "stays"), "boot": cloud.ssh("stays", _BOOT)}


def is_as_it_was(cloud: Cloud, before: dict[str, Any]) -> None:
    """Check that `stays` is ACTIVE as it was made, answers, and has its data."""
    now = show(cloud, "stays")
    assert now["status"] == "ACTIVE"
    assert (now["task_state"], now["fault"]) == (None, None)
    assert now["addresses"] == before["addresses"]
    assert now["clocks"] == before["clocks"]
    assert cloud.ssh("stays", _READ).split() == ["on-disk", "on-volume"]
    assert (
        cloud.ssh("stays", "cat /sys/class/net/eth0/address").strip()
        == (before["addresses"][0]["mac"])
    )
    assert cloud.ssh("stays", _BOOT) != before["boot"], "it was not started again"


def domain_state(cloud: Cloud, name: str) -> str:
    """What libvirt says of a VM."""
    words = ("virsh", "-c", "qemu:///system", "domstate", cloud.instance(name).id)
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def test_after_a_reboot_everything_is_brought_to_where_it_should_be(stays: Cloud) -> None:
    cloud, before = stays, as_it_is(stays)
    inventory = cloud.inventory()
    cloud.fifty("vm", "create", "broken", *CREATE)
    disk = cloud.home / "instances" / cloud.instance("broken").id / "disk.qcow2"
    for name, fault, more in (
        ("anew", "46:kill:after", ()),
        ("undone", "37:kill:after", ("--on-interrupt", "rollback")),
    ):
        killed = cloud.run("vm", "create", name, *CREATE, *more, fault=fault)
        assert killed.returncode == -signal.SIGKILL
    half = ("network", "create", "halved", "--cidr", "10.77.8.0/24")
    assert cloud.run(*half, fault="5:kill:after").returncode == -signal.SIGKILL
    disk.rename(disk.with_suffix(".away"))

    gone = reboot(cloud)
    assert {"guest", "process", "namespace", "link", "nft"} <= {line.split()[0] for line in gone}
    assert domain_state(cloud, "stays") == "shut off"

    found = reconciled(cloud, code=1)
    assert found["stays"] == ("lost: the host was rebooted", "complete")
    assert found["lab"] == ("lost: the host was rebooted", "complete")
    assert found["external"] == ("lost: the host was rebooted", "complete")
    assert found["anew"] == ("building", "complete")
    assert found["undone"] == ("building", "undone")
    assert found["halved"] == ("building", "complete")
    assert found["broken"] == ("lost: the host was rebooted", "kept")
    is_as_it_was(cloud, before)
    assert cloud.instance("anew").generation == 2
    assert cloud.ssh("anew", "hostname").strip() == "anew"

    broken = show(cloud, "broken")
    assert broken["status"] == "ERROR"
    assert broken["fault"]["step"] == 44
    assert "fifty vm start broken" in broken["fault"]["hint"]
    refused = cloud.json("vm", "rollback", "broken", code=1)
    assert refused["error"] == "Conflict", "an undo would take its disk"
    disk.with_suffix(".away").rename(disk)
    assert cloud.json("vm", "start", "broken")["status"] == "ACTIVE"
    assert cloud.ssh("broken", "hostname").strip() == "broken"

    assert reconciled(cloud) == {}
    assert cloud.json("audit")["clean"]
    cloud.delete(["broken", "anew", "undone"])
    cloud.fifty("network", "delete", "halved")
    # QEMU's arguments count its starts; a connection is there for as long as somebody talks.
    volatile = ("qemu-system", "conntrack")
    changed = differences(inventory, cloud.inventory())
    assert [line for line in changed if not any(word in line for word in volatile)] == []


def test_a_restore_that_is_killed_goes_on_when_the_service_starts(
    stays: Cloud, session_directory: Path
) -> None:
    cloud, before = stays, as_it_is(stays)
    reboot(cloud)
    assert cloud.run("reconcile", fault="42:kill:after").returncode == -signal.SIGKILL
    stopped = [
        vm
        for vm in cloud.json("vm", "list")
        if (vm["status"], vm["task_state"]) == ("SHUTOFF", "powering_on")
    ]
    assert len(stopped) == 1
    build = cloud.build(stopped[0]["name"])
    assert build.state == "restoring"
    steps = {step["number"]: step["state"] for step in cloud.json("vm", "steps", build.name)}
    assert (steps[30], steps[37], steps[42], steps[44]) == ("done", "done", "running", "pending")

    served = Served(cloud, session_directory / "serve-after-reboot.log")
    served.start()
    try:
        eventually(lambda: show(cloud, "stays")["status"] == "ACTIVE", "VM that is back")
        eventually(lambda: cloud.build(build.name).state == "complete", "end of its restore")
    finally:
        assert served.stop() == 0
    is_as_it_was(cloud, before)
    tasks = {step["number"]: step["attempts"] for step in cloud.json("vm", "steps", "stays")}
    assert tasks[44] == 1


def test_without_a_reboot_a_vm_that_is_off_stays_off_until_it_is_started(stays: Cloud) -> None:
    cloud, before = stays, as_it_is(stays)
    cloud.ssh("stays", "sync")
    # The power button: the guest shuts itself down.
    cloud.world.hypervisor.shutdown(cloud.instance("stays").id)
    eventually(lambda: domain_state(cloud, "stays") == "shut off", "guest that is off")
    assert reconciled(cloud) == {"stays": ("off: shutoff", "complete")}
    assert (show(cloud, "stays")["status"], show(cloud, "stays")["fault"]) == ("SHUTOFF", None)
    assert reconciled(cloud) == {}
    assert domain_state(cloud, "stays") == "shut off"
    assert cloud.json("audit")["clean"]

    assert cloud.json("vm", "start", "stays")["status"] == "ACTIVE"
    is_as_it_was(cloud, before)
    # Once more is fine.
    assert cloud.json("vm", "start", "stays")["status"] == "ACTIVE"

    os.kill(qemu_of(cloud, "stays"), signal.SIGKILL)
    eventually(lambda: domain_state(cloud, "stays") in ("shut off", "crashed"), "dead QEMU")
    assert reconciled(cloud) == {"stays": ("off: crashed", "complete")}
    dead = show(cloud, "stays")
    assert (dead["status"], dead["fault"]["error"]) == ("SHUTOFF", "GuestFault")
    assert "fifty vm start stays" in dead["fault"]["hint"]
    reboot(cloud)
    assert "stays" not in reconciled(cloud)
    assert show(cloud, "stays")["status"] == "SHUTOFF"


def qemu_of(cloud: Cloud, name: str) -> int:
    """The pid of a VM's QEMU."""
    the_id = cloud.instance(name).id
    [pid] = [
        int(entry.name)
        for entry in Path("/proc").glob("[0-9]*")
        if the_id in _words(entry) and "qemu-system" in _words(entry)
    ]
    return pid


def _words(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_a_part_of_a_network_that_was_killed_or_removed_is_brought_back(cloud: Cloud) -> None:
    before = cloud.inventory()
    store = cloud.world.store
    [lab] = [network for network in store.networks.list() if network.name == "lab"]
    [external] = [network for network in store.networks.list() if network.name == "external"]
    dnsmasq = cloud.home / "networks" / lab.id / "dhcp" / "dnsmasq.pid"
    metadata = cloud.home / "networks" / lab.id / "metadata" / "server.pid"
    for pid_file in (dnsmasq, metadata):
        os.kill(int(pid_file.read_text()), signal.SIGKILL)
    router = store.routers.of_network(lab.id)
    assert router is not None
    for words in (
        ("ip", "netns", "delete", router_namespace(router.id)),
        ("ip", "netns", "delete", outside_namespace(external.id)),
    ):
        subprocess.run(words, check=True)
    eventually(lambda: differences(before, cloud.inventory()), "things that are gone")
    found = reconciled(cloud)
    assert found["lab"][0].startswith("lost: ")
    assert found["external"][0].startswith("lost: ")
    assert differences(before, cloud.inventory()) == []
    assert reconciled(cloud) == {}

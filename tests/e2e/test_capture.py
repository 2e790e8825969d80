"""VMs that become images, running and off; and VMs of these."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cloud import Cloud
from tests.inventory import differences

pytestmark = pytest.mark.e2e

CREATE = ("--image", "micro", "--network", "lab", "--flavor", "tiny")
HOST_KEY = "dropbearkey -y -f /etc/dropbear/host_key | grep ^ssh"


@pytest.fixture(name="cloud", scope="module")
def _cloud(site_cloud: Cloud) -> Iterator[Cloud]:
    """A VM `lived` that somebody has worked in."""
    site_cloud.fifty("vm", "create", "lived", *CREATE)
    site_cloud.ssh("lived", "echo mine >/root/work; echo secret >/root/.ash_history; sync")
    yield site_cloud
    names = {vm["name"] for vm in site_cloud.json("vm", "list")}
    site_cloud.delete(names & {"lived", "child"})
    for image in site_cloud.json("image", "list"):
        if image["name"].startswith("of-lived"):
            site_cloud.fifty("image", "delete", image["id"])


def disks(cloud: Cloud) -> list[str]:
    folder = cloud.home / "instances" / cloud.instance("lived").id
    return sorted(path.name for path in folder.glob("*.qcow2"))


def test_a_vm_of_a_captured_one_has_an_identity_of_its_own(cloud: Cloud) -> None:
    """Taken while it runs: its file is there, and what was written after is still the VM's."""
    # What a guest has not written yet is in no snapshot without its agent: so the first is.
    ticks = "while sleep 0.1; do date >>/root/ticks; done"
    cloud.ssh("lived", f"date >/root/ticks; sync; ({ticks}) >/dev/null 2>&1 </dev/null &")
    key = cloud.ssh("lived", HOST_KEY)
    image = cloud.json("image", "capture", "lived", "of-lived")
    assert disks(cloud) == ["disk.qcow2"]
    before = int(cloud.ssh("lived", "wc -l </root/ticks"))
    assert before > 0
    assert image["parent_id"] == cloud.json("image", "show", "micro")["id"]
    assert (image["certificate"], image["visibility"]) == (None, "private")
    report = cloud.json("image", "check", "of-lived")
    assert {one["verdict"] for one in report["findings"]} == {"pass"}, report
    cloud.fifty("vm", "create", "child", "--image", "of-lived", *CREATE[2:])
    assert cloud.ssh("child", "cat /root/work") == "mine\n"
    assert cloud.ssh("child", "hostname") == "child\n"
    assert cloud.ssh("child", HOST_KEY) != key
    assert cloud.ssh("child", "cat /root/.ash_history 2>/dev/null || true") == ""
    assert int(cloud.ssh("child", "wc -l </root/ticks")) > 0
    # The VM itself has gone on, and is as it was.
    assert int(cloud.ssh("lived", "wc -l </root/ticks")) > before
    assert cloud.ssh("lived", "cat /root/.ash_history") == "secret\n"
    assert cloud.ssh("lived", HOST_KEY) == key
    cloud.delete(["child"])


@pytest.mark.parametrize("fault", ["42:kill:after", "46:kill:before"])
def test_killed_midway_it_is_gone_on_with(cloud: Cloud, fault: str) -> None:
    name = f"of-lived-{fault[:2]}"
    assert cloud.run("image", "capture", "lived", name, fault=fault).returncode == -9
    assert len(disks(cloud)) == 2
    cloud.fifty("reconcile")
    assert disks(cloud) == ["disk.qcow2"]
    assert cloud.json("image", "show", name)["status"] == "active"
    assert cloud.ssh("lived", "cat /root/work") == "mine\n"
    cloud.fifty("image", "delete", name)
    assert cloud.json("audit")["clean"]


def test_of_a_failed_one_nothing_is_left(cloud: Cloud) -> None:
    before = cloud.inventory()
    told = cloud.json("image", "capture", "lived", "of-lived-never", code=1, fault="44:raise:after")
    assert told["error"] == "InjectedFault"
    assert differences(before, cloud.inventory()) == []
    assert disks(cloud) == ["disk.qcow2"]
    assert cloud.json("audit")["clean"]


def test_one_that_is_off_stays_off(cloud: Cloud) -> None:
    world, vm = cloud.world, cloud.instance("lived").id
    key = cloud.ssh("lived", HOST_KEY)
    world.hypervisor.destroy(vm)
    cloud.fifty("image", "capture", "lived", "of-lived-off", "--as-it-is")
    assert world.hypervisor.state(vm) == "shutoff"
    assert disks(cloud) == ["disk.qcow2"]
    report = cloud.json("image", "check", "of-lived-off", code=3)
    failed = {one["point"] for one in report["findings"] if one["verdict"] == "fail"}
    assert failed == {"host-keys", "keys"}
    # A disk that no QEMU has open is guarded by nobody else.
    cloud.fifty("image", "capture", "lived", "of-lived-too")
    cloud.fifty("vm", "start", "lived")
    assert cloud.ssh("lived", "cat /root/work") == "mine\n"
    assert cloud.ssh("lived", "cat /root/.ash_history") == "secret\n"
    assert cloud.ssh("lived", HOST_KEY) == key


def test_what_cannot_be_captured_is_refused(cloud: Cloud) -> None:
    before = cloud.inventory()
    for words, error in (
        (("nobody", "of-lived-x"), "NotFound"),
        (("lived", "micro"), "Conflict"),
        (("lived", "no name"), "InvalidRequest"),
        (("lived", "of-lived-x", "--quiesce"), "Conflict"),
    ):
        assert cloud.json("image", "capture", *words, code=1)["error"] == error
    assert differences(before, cloud.inventory()) == []

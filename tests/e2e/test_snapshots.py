"""Snapshots of one VM, from taking to deleting, killed at every point, and over a reboot.

Of the points it is a third a run, by the commit; MATRIX=all takes all of them.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.resources import InstanceStatus, Snapshot
from flows.plans import PLANS
from tests.cloud import Cloud
from tests.forked import ForkedCloud, forked
from tests.inventory import differences
from tests.matrix.cases import chosen
from tests.reboot import reboot
from tests.waiting import eventually

pytestmark = pytest.mark.e2e

VM = "shot"
Inventory = dict[str, list[str]]
_BOOT = "cat /proc/sys/kernel/random/boot_id"
#: Answers as QEMU's guest agent does, as far as a snapshot asks.
_AGENT = r"""#!/bin/sh
insmod /root/virtio_console.ko
# QEMU tells of its ports a moment after the driver has asked.
until [ -e "/dev/${port##*/}" ] && [ -n "$port" ]; do
    for name in /sys/class/virtio-ports/*/name; do
        [ "$(cat $name)" = org.qemu.guest_agent.0 ] && port=${name%/name}
    done
    sleep 1
done
# Kept open: libvirt comes when it is, and goes when it is not. Until then there is no more to read.
exec 3<>"/dev/${port##*/}"
while :; do
    while read -r line <&3; do
        case $line in
        *guest-sync*) id=${line##*:}; echo "{\"return\": ${id%%[ \}]*}}" >&3 ;;
        *fsfreeze-freeze*)
            fsfreeze --freeze / && echo frozen >>/run/agent
            echo '{"return": 1}' >&3 ;;
        *fsfreeze-thaw*)
            fsfreeze --unfreeze / && echo thawed >>/run/agent
            echo '{"return": 1}' >&3 ;;
        *) echo '{"error": {"class": "CommandNotFound", "desc": "not here"}}' >&3 ;;
        esac
    done
    sleep 1
done
"""


@pytest.fixture(scope="module", name="empty")
def _empty(site_cloud: Cloud) -> Inventory:
    """What there is without the VM."""
    return site_cloud.inventory()


@pytest.fixture(scope="module", name="vm")
def _vm(
    site_cloud: Cloud, empty: Inventory, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cloud]:
    """A VM; in it a guest agent, which does not run yet."""
    del empty
    module = next((site_cloud.home / "images" / "packages").rglob("virtio_console.ko"))
    agent = tmp_path_factory.mktemp("agent") / "agent"
    agent.write_text(_AGENT)
    site_cloud.fifty(
        *("vm", "create", VM, "--image", "micro", "--flavor", "tiny", "--network", "lab"),
        *("--inject", f"{module}:/root/virtio_console.ko", "--inject", f"{agent}:/root/agent"),
    )
    yield site_cloud
    site_cloud.delete(one["id"] for one in site_cloud.json("vm", "list") if one["name"] == VM)


@pytest.fixture(scope="module", name="quick")
def _quick(vm: Cloud) -> Iterator[ForkedCloud]:
    with forked(vm) as quick:
        yield quick


@pytest.fixture(name="fifty")
def _fifty(quick: ForkedCloud) -> Iterator[Fifty]:
    """`fifty`; the VM is without snapshots before and after, nothing left of them or astray."""
    cloud, fifty = quick, Fifty(quick)
    if cloud.instance(VM).status is not InstanceStatus.ACTIVE:
        cloud.fifty("vm", "start", VM)
    answers(cloud)
    write(cloud, "at first")
    before = steady(cloud)
    yield fifty
    if VM not in {one.name for one in cloud.world.store.instances.list()}:
        return  # a test has deleted it
    for one in reversed(fifty.listed()):
        fifty.delete(one.id)
    assert differences(before, steady(cloud)) == []
    assert layers(cloud) == ["disk.qcow2"]
    check_disk(cloud)
    assert fifty("audit") == 0


def steady(cloud: Cloud) -> Inventory:
    """The inventory without what changes with every start of a QEMU, or by itself."""
    found = cloud.inventory()
    kept = [line.split()[0] for line in found["processes"]]
    return {**found, "processes": sorted(kept), "conntrack": []}


def answers(cloud: Cloud) -> str:
    """Wait until one can log in; the id of the guest's boot."""

    def asked() -> str:
        try:
            return cloud.ssh(VM, _BOOT).strip()
        except AssertionError:
            return ""

    return eventually(asked, "guest that answers")


def write(cloud: Cloud, text: str) -> None:
    cloud.ssh(VM, f"echo '{text}' > /root/said; sync")


def said(cloud: Cloud) -> str:
    return cloud.ssh(VM, "cat /root/said").strip()


def directory(cloud: Cloud) -> Path:
    return cloud.home / "instances" / cloud.instance(VM).id


def layers(cloud: Cloud) -> list[str]:
    """The files of the disk and of memories in the VM's directory."""
    names = (path.name for path in directory(cloud).iterdir())
    return sorted(name for name in names if name.startswith(("disk", "memory")))


def defined(cloud: Cloud, *options: str) -> list[str]:
    """The files of the root disk, as libvirt's definition names them, the top first."""
    words = ("virsh", "-c", "qemu:///system", "dumpxml", *options, cloud.instance(VM).id)
    xml = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    disk = xml[xml.index("<disk ") : xml.index("</disk>")]
    found = [part.partition("'")[0] for part in disk.split("<source file='")[1:]]
    return [Path(path).name for path in found if str(directory(cloud)) in path]


def virsh(cloud: Cloud, *words: str) -> str:
    command = ("virsh", "-q", "-c", "qemu:///system", *words, cloud.instance(VM).id)
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def check_disk(cloud: Cloud) -> None:
    for name in layers(cloud):
        if name.endswith(".qcow2"):
            words = ("qemu-img", "check", "-q", "-U", "-f", "qcow2", directory(cloud) / name)
            subprocess.run(words, check=True)


class Fifty:
    """`fifty` in forks of one process that has imported all, and what it is used for here.

    Args:
        cloud: The site.
    """

    def __init__(self, cloud: ForkedCloud) -> None:
        self.cloud = cloud

    def __call__(self, *words: str, fault: str = "") -> int:
        """Run it; its exit code."""
        return self.cloud.run(*words, fault=fault).returncode

    def listed(self) -> list[Snapshot]:
        """The VM's snapshots, as recorded."""
        return self.cloud.world.store.snapshots.of(self.cloud.instance(VM).id)

    def take(self, name: str, *options: str) -> Snapshot:
        self.cloud.fifty("vm", "snapshot", "create", VM, name, *options)
        [taken] = [one for one in self.listed() if one.name == name]
        assert (taken.status, taken.current) == ("available", True)
        return taken

    def refused(self, *words: str) -> str:
        """Ask for a snapshot or a revert that is refused; its error."""
        told = self.cloud.json("vm", "snapshot", *words[:1], VM, *words[1:], code=1)
        return str(told["error"])

    def revert(self, name: str) -> None:
        self.cloud.fifty("vm", "snapshot", "revert", VM, name)

    def delete(self, name: str) -> None:
        self.cloud.fifty("vm", "snapshot", "delete", VM, name)


def of_this_run(kind: str) -> list[int]:
    """The steps of a kind that this run is killed at: a third, or all, as in the matrix."""
    [*steps] = PLANS[kind][0].catalogue.steps
    return [number for number in steps if number in chosen()[0]]


def twice(kind: str, which: str = "") -> str:
    """Have every step, or undo, of a kind fail once, after it has had its effect."""
    steps = PLANS[kind][0].catalogue.steps.values()
    numbers = [step.number for step in steps if step.undo or not which]
    return ",".join(f"{which}{number}:flake:after" for number in numbers)


def test_live_snapshots_of_the_disk_and_of_the_memory(fifty: Fifty) -> None:
    cloud = fifty.cloud
    boot = answers(cloud)
    one = fifty.take("one")
    assert (one.kind, one.memory, one.frozen) == ("external", False, "disk.qcow2")
    write(cloud, "after one")
    two = fifty.take("two")
    write(cloud, "after two")
    assert answers(cloud) == boot
    assert len(defined(cloud)) == len(defined(cloud, "--inactive")) == 3
    assert fifty("audit") == 0
    assert fifty.refused("create", "one") == "Conflict"
    assert fifty.refused("create", "inside", "--internal") == "Conflict"
    told = cloud.json("vm", "snapshot", "list", VM)
    assert [(item["name"], item["parent_id"]) for item in told] == [("one", None), ("two", one.id)]

    # Block commit of a layer in the middle: the guest runs on, and loses nothing. Killed when it is
    # merged, there is one on the frozen file as before: that of another snapshot, which stays.
    words = ("vm", "snapshot", "delete", VM, "one")
    assert fifty(*words, fault="u3:kill:after") == -signal.SIGKILL
    assert fifty("reconcile") == 0
    assert (answers(cloud), said(cloud)) == (boot, "after two")
    assert [each.id for each in fifty.listed()] == [two.id]
    assert len(defined(cloud)) == len(layers(cloud)) == 2

    # With its memory the guest goes on as if nothing had been.
    cloud.ssh(VM, "echo in-memory > /run/kept; sleep 100000 > /dev/null 2>&1 & echo $! > /run/pid")
    three = fifty.take("three", "--memory")
    assert (three.memory, three.parent_id) == (True, two.id)
    cloud.ssh(VM, "kill $(cat /run/pid); rm /run/kept")
    write(cloud, "after three")
    hypervisor, the_id = cloud.world.hypervisor, cloud.instance(VM).id
    controls = hypervisor.controls(the_id)
    fifty.revert("three")
    assert (answers(cloud), said(cloud)) == (boot, "after two")
    lives = cloud.ssh(VM, "cat /run/kept; kill -0 $(cat /run/pid) && echo lives")
    assert lives.split() == ["in-memory", "lives"]
    assert hypervisor.controls(the_id) == controls
    # Its memory would hide another disk.
    assert defined(cloud)[1] == three.frozen
    assert fifty("audit") == 0

    # Without, it starts from the disk as it was.
    fifty.revert("two")
    assert answers(cloud) != boot
    assert said(cloud) == "after one"
    assert [one.name for one in fifty.listed() if one.current] == ["two"]

    # A layer below two lines of snapshots belongs to both.
    refused = cloud.json("vm", "snapshot", "delete", VM, "two", code=1)
    assert (refused["error"], "three" in refused["message"]) == ("Conflict", True)
    fifty.delete("three")
    assert layers(cloud) == sorted(defined(cloud))


def test_quiesced_the_file_system_is_whole(fifty: Fifty, tmp_path: Path) -> None:
    cloud = fifty.cloud
    before = layers(cloud)
    assert fifty.refused("create", "quiet", "--quiesce") == "Unsupported"
    assert (layers(cloud), fifty.listed()) == (before, [])
    cloud.ssh(VM, "sh /root/agent > /dev/null 2>&1 < /dev/null &")
    eventually(lambda: "state='connected'" in virsh(cloud, "dumpxml"), "guest agent")

    def recovers(name: str, *options: str) -> bool:
        """Whether a system that finds the disk as it was frozen has a journal to play back."""
        raw = tmp_path / name
        frozen = directory(cloud) / str(fifty.take(name, *options).frozen)
        words = ("qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", frozen, raw)
        subprocess.run(words, check=True)
        told = subprocess.run(
            ["dumpe2fs", "-h", f"{raw}?offset={1 << 20}"],
            check=True,
            capture_output=True,
            text=True,
        )
        return "needs_recovery" in told.stdout

    assert recovers("loud")
    assert not recovers("quiet", "--quiesce")
    assert [one.quiesced for one in fifty.listed()] == [False, True]
    assert cloud.ssh(VM, "cat /run/agent").split() == ["frozen", "thawed"]
    write(cloud, "thawed")


def test_over_a_stop_and_a_reboot_and_with_the_vm_off(fifty: Fifty) -> None:
    cloud = fifty.cloud
    fifty.take("first")
    write(cloud, "after first")
    virsh(cloud, "destroy")
    for option in ("--memory", "--quiesce"):
        assert fifty.refused("create", "off", option) == "Conflict"
    fifty.take("off")
    assert len(defined(cloud)) == 3
    # As somebody who makes libvirt forget the VM: it is defined again on what it wrote last.
    virsh(cloud, "undefine")
    reboot(cloud)
    assert fifty.refused("revert", "first") == "Conflict"
    fifty("reconcile")
    answers(cloud)
    assert said(cloud) == "after first"
    assert len(defined(cloud)) == 3
    assert fifty("audit") == 0

    virsh(cloud, "destroy")
    fifty("reconcile")
    fifty.revert("first")
    assert cloud.instance(VM).status is InstanceStatus.SHUTOFF
    # Forgotten again, it is on what it was put on; and so it is when that was merged.
    virsh(cloud, "undefine")
    assert fifty("vm", "start", VM) == 0
    answers(cloud)
    assert said(cloud) == "at first"
    virsh(cloud, "destroy")
    fifty("reconcile")
    fifty.delete("off")
    fifty.delete("first")
    virsh(cloud, "undefine")
    assert fifty("vm", "start", VM) == 0
    answers(cloud)
    assert said(cloud) == "at first"


def test_inside_of_the_file(fifty: Fifty) -> None:
    cloud = fifty.cloud
    boot = answers(cloud)
    one = fifty.take("inside", "--internal")
    assert (one.kind, one.memory, one.frozen) == ("internal", True, None)
    assert fifty.refused("create", "beside") == "Conflict"
    write(cloud, "later")
    fifty.revert("inside")
    assert (answers(cloud), said(cloud)) == (boot, "at first")
    write(cloud, "later")
    virsh(cloud, "destroy")
    assert not fifty.take("off", "--internal").memory
    fifty("reconcile")
    assert cloud.instance(VM).status is InstanceStatus.SHUTOFF
    fifty.revert("inside")
    assert cloud.instance(VM).status is InstanceStatus.ACTIVE
    # An interface more than then: the memory does not know it, the disk does not care.
    cloud.fifty("network", "create", "spare", "--cidr", "10.77.3.0/24")
    cloud.fifty("vm", "attach-interface", VM, "spare")
    assert fifty.refused("revert", "inside") == "Conflict"
    fifty.revert("off")
    answers(cloud)
    assert said(cloud) == "later"
    assert len(cloud.world.hypervisor.interfaces(cloud.instance(VM).id)) == 2
    cloud.fifty("vm", "detach-interface", VM, str(cloud.ports(VM)[1].addresses[0].address))
    cloud.fifty("network", "delete", "spare")
    assert len(fifty.listed()) == 2
    assert layers(cloud) == ["disk.qcow2"]


def test_killed_and_failed_at_every_point_of_taking_and_deleting(fifty: Fifty) -> None:
    cloud = fifty.cloud
    boot = answers(cloud)
    steps = PLANS["snapshot"][0].catalogue.steps
    create = ("vm", "snapshot", "create", VM)
    for number in of_this_run("snapshot"):
        name = f"killed-{number}"
        when = "before" if number == 3 else "after"
        assert fifty(*create, name, fault=f"{number}:kill:{when}") == -signal.SIGKILL
        # It runs on, with all that it has written.
        write(cloud, name)
        assert fifty("reconcile") == 0
        assert [one.status for one in fifty.listed()] == ["available"]
        words = ("vm", "snapshot", "delete", VM, name)
        undo = next(step for step in (*range(number, 0, -1), 3) if steps[step].undo)
        when = "before" if number == 4 else "after"
        assert fifty(*words, fault=f"u{undo}:kill:{when}") == -signal.SIGKILL
        assert fifty("reconcile") == 0
        assert (fifty.listed(), layers(cloud)) == ([], ["disk.qcow2"])
        assert said(cloud) == name
        options = (f"failed-{number}", "--memory")
        assert fifty(*create, *options, fault=f"{number}:raise:after") == 1
        assert (fifty.listed(), layers(cloud)) == ([], ["disk.qcow2"])
    # Each step done twice has the effect of once, and so has each undo.
    assert fifty(*create, "twice", fault=twice("snapshot")) == 0
    assert len(layers(cloud)) == 2
    words = ("vm", "snapshot", "delete", VM, "twice")
    assert fifty(*words, fault=twice("snapshot", "u")) == 0
    assert answers(cloud) == boot


def test_killed_and_failed_at_every_point_of_a_revert(fifty: Fifty) -> None:
    cloud = fifty.cloud
    boot = answers(cloud)
    fifty.take("base", "--memory")
    files = len(layers(cloud))
    words = ("vm", "snapshot", "revert", VM, "base")
    for number in of_this_run("revert"):
        write(cloud, f"before {number}")
        assert fifty(*words, fault=f"{number}:kill:after") == -signal.SIGKILL
        if number == 4:
            # Stopped in between, it is off; and it can be started.
            assert fifty("vm", "start", VM) == 0
            assert said(cloud) == "before 4"
        assert fifty("reconcile") == 0
        assert (answers(cloud), said(cloud)) == (boot, "at first")
        assert [one.status for one in fifty.listed()] == ["available"]
        assert len(layers(cloud)) == files
        assert cloud.instance(VM).status is InstanceStatus.ACTIVE
    # What was done is undone, and the guest is as it was, but for its memory.
    write(cloud, "not reverted")
    assert fifty(*words, fault=f"6:raise:after,{twice('revert', 'u')}") == 1
    assert answers(cloud) != boot
    assert said(cloud) == "not reverted"
    assert fifty(*words, fault=twice("revert")) == 0
    assert (answers(cloud), said(cloud)) == (boot, "at first")
    # From the last step on there is no way back.
    write(cloud, "reverted")
    assert fifty(*words, fault="7:raise:after") == 1
    assert (answers(cloud), said(cloud)) == (boot, "at first")
    assert len(layers(cloud)) == files


def test_deleted_with_its_snapshots_nothing_is_left(fifty: Fifty, empty: Inventory) -> None:
    cloud = fifty.cloud
    the_id = cloud.instance(VM).id
    fifty.take("kept", "--memory")
    words = ("vm", "snapshot", "create", VM, "half")
    assert fifty(*words, fault="3:kill:after") == -signal.SIGKILL
    told = cloud.json("vm", "delete", VM)
    assert told["deleted_snapshots"] == ["kept", "half"]
    assert cloud.world.store.snapshots.of(the_id) == []
    assert fifty("reconcile") == 0
    assert differences(empty, cloud.inventory()) == []
    assert fifty("audit") == 0

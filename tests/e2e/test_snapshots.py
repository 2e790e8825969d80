"""Snapshots of one VM, from taking to deleting, killed at every point, and over a reboot."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from blocks.resources import InstanceStatus
from flows.plans import PLANS
from tests.cloud import Cloud
from tests.inventory import differences
from tests.reboot import reboot
from tests.waiting import eventually

pytestmark = pytest.mark.e2e

VM = "shot"
_BOOT = "cat /proc/sys/kernel/random/boot_id"
#: Answers as QEMU's guest agent does, as far as a snapshot asks.
_AGENT = r"""#!/bin/sh
insmod /root/virtio_console.ko
for name in /sys/class/virtio-ports/*/name; do
    [ "$(cat $name)" = org.qemu.guest_agent.0 ] && port=${name%/name}
done
while :; do
    exec 3<>"/dev/${port##*/}"
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


@pytest.fixture(scope="module", name="vm")
def _vm(site_cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A VM; in it a guest agent, which does not run yet."""
    module = next((site_cloud.home / "images" / "packages").rglob("virtio_console.ko"))
    agent = tmp_path_factory.mktemp("agent") / "agent"
    agent.write_text(_AGENT)
    site_cloud.fifty(
        *("vm", "create", VM, "--image", "micro", "--flavor", "tiny", "--network", "lab"),
        *("--inject", f"{module}:/root/virtio_console.ko", "--inject", f"{agent}:/root/agent"),
    )
    yield site_cloud
    site_cloud.fifty("vm", "delete", VM)


@pytest.fixture(name="clean")
def _clean(vm: Cloud) -> Iterator[Cloud]:
    """The VM without snapshots, before and after; nothing of them is left, nothing astray."""
    running(vm)
    write(vm, "at first")
    before = steady(vm)
    yield vm
    for one in reversed(listed(vm)):
        vm.fifty("vm", "snapshot", "delete", VM, one["id"])
    assert differences(before, steady(vm)) == []
    assert layers(vm) == ["disk.qcow2"]
    check_disk(vm)
    assert vm.json("audit")["clean"]


def steady(cloud: Cloud) -> dict[str, list[str]]:
    """The inventory without what changes with every start of a QEMU, or by itself."""
    found = cloud.inventory()
    kept = [line.split()[0] for line in found["processes"]]
    return {**found, "processes": sorted(kept), "conntrack": []}


def running(cloud: Cloud) -> None:
    if cloud.instance(VM).status is not InstanceStatus.ACTIVE:
        cloud.fifty("vm", "start", VM)
    answers(cloud)


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


def listed(cloud: Cloud) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cloud.json("vm", "snapshot", "list", VM)
    return found


def take(cloud: Cloud, name: str, *options: str, code: int = 0, fault: str = "") -> dict[str, Any]:
    words = ("vm", "snapshot", "create", VM, name, *options)
    found: dict[str, Any] = cloud.json(*words, code=code, fault=fault)
    return found


def revert(cloud: Cloud, name: str, *, code: int = 0, fault: str = "") -> dict[str, Any]:
    words = ("vm", "snapshot", "revert", VM, name)
    found: dict[str, Any] = cloud.json(*words, code=code, fault=fault)
    return found


def delete(cloud: Cloud, name: str, *, code: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = cloud.json("vm", "snapshot", "delete", VM, name, code=code)
    return found


@contextmanager
def forked(cloud: Cloud) -> Iterator[Callable[..., int]]:
    """`fifty` in forks of one process: call it with words and a fault; its exit code."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.forked"],
        env=cloud.environment(""),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        answers_ = process.stdout

        def fifty(*words: str, fault: str = "") -> int:
            print(json.dumps([words, fault]), file=process.stdin, flush=True)
            return int(answers_.readline())

        yield fifty
        process.stdin.close()


def twice(kind: str, which: str = "") -> str:
    """Have every step, or undo, of a kind fail once, after it has had its effect."""
    steps = PLANS[kind][0].catalogue.steps.values()
    numbers = [step.number for step in steps if step.undo or not which]
    return ",".join(f"{which}{number}:flake:after" for number in numbers)


def test_live_snapshots_of_the_disk_and_of_the_memory(clean: Cloud) -> None:
    cloud = clean
    boot = answers(cloud)
    one = take(cloud, "one")
    assert (one["kind"], one["memory"], one["status"], one["current"]) == (
        *("external", False, "available"),
        True,
    )
    write(cloud, "after one")
    take(cloud, "two")
    write(cloud, "after two")
    assert answers(cloud) == boot
    assert len(defined(cloud)) == len(defined(cloud, "--inactive")) == 3
    assert cloud.json("audit")["clean"]
    assert take(cloud, "one", code=1)["error"] == "Conflict"
    assert take(cloud, "inside", "--internal", code=1)["error"] == "Conflict"

    # Block commit of a layer in the middle: the guest runs on, and loses nothing.
    delete(cloud, "one")
    assert (answers(cloud), said(cloud)) == (boot, "after two")
    assert [entry["name"] for entry in listed(cloud)] == ["two"]
    assert len(defined(cloud)) == len(layers(cloud)) == 2

    # Without memory the guest starts from the disk as it was.
    assert revert(cloud, "two")["vm_status"] == "ACTIVE"
    assert answers(cloud) != boot
    assert said(cloud) == "after one"
    assert cloud.json("audit")["clean"]

    # With it, it goes on as if nothing had been.
    boot = answers(cloud)
    cloud.ssh(VM, "echo in-memory > /run/kept; sleep 100000 > /dev/null 2>&1 & echo $! > /run/pid")
    three = take(cloud, "three", "--memory")
    assert three["memory"] and three["parent_id"] == listed(cloud)[0]["id"]
    cloud.ssh(VM, "kill $(cat /run/pid); rm /run/kept")
    write(cloud, "after three")
    rates = cloud.world.hypervisor.controls(cloud.instance(VM).id)
    revert(cloud, "three")
    assert answers(cloud) == boot
    assert said(cloud) == "after one"
    assert cloud.ssh(VM, "cat /run/kept; kill -0 $(cat /run/pid) && echo lives").split() == [
        "in-memory",
        "lives",
    ]
    assert cloud.world.hypervisor.controls(cloud.instance(VM).id) == rates

    # A layer below two lines of snapshots belongs to both.
    revert(cloud, "two")
    refused = delete(cloud, "two", code=1)
    assert refused["error"] == "Conflict"
    assert "three" in refused["message"]
    delete(cloud, "three")
    assert layers(cloud) == sorted(defined(cloud))
    answers(cloud)


def test_quiesced_the_file_system_is_whole(clean: Cloud, tmp_path: Path) -> None:
    cloud = clean
    before = layers(cloud)
    assert take(cloud, "quiet", "--quiesce", code=1)["error"] == "Unsupported"
    assert (layers(cloud), listed(cloud)) == (before, [])
    cloud.ssh(VM, "sh /root/agent > /dev/null 2>&1 < /dev/null &")
    eventually(lambda: "state='connected'" in virsh(cloud, "dumpxml"), "guest agent")

    def recovers(name: str, *options: str) -> bool:
        """Whether a system that finds the disk as it was frozen has a journal to play back."""
        raw = tmp_path / name
        frozen = directory(cloud) / take(cloud, name, *options)["frozen"]
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
    assert [one["quiesced"] for one in listed(cloud)] == [False, True]
    assert cloud.ssh(VM, "cat /run/agent").split() == ["frozen", "thawed"]
    write(cloud, "thawed")


def test_over_a_stop_and_a_reboot_and_with_the_vm_off(clean: Cloud) -> None:
    cloud = clean
    take(cloud, "first")
    write(cloud, "after first")
    virsh(cloud, "destroy")
    assert take(cloud, "off", "--memory", code=1)["error"] == "Conflict"
    assert take(cloud, "off", "--quiesce", code=1)["error"] == "Conflict"
    take(cloud, "off")
    assert len(defined(cloud)) == 3
    reboot(cloud)
    assert revert(cloud, "first", code=1)["error"] == "Conflict"
    cloud.json("reconcile", code=None)
    running(cloud)
    assert said(cloud) == "after first"
    assert cloud.json("audit")["clean"]
    write(cloud, "after off")
    # As somebody who makes libvirt forget the VM: it is defined again on what it wrote last.
    virsh(cloud, "destroy")
    virsh(cloud, "undefine")
    cloud.json("reconcile", code=None)
    cloud.fifty("vm", "start", VM)
    assert said(cloud) == "after off"

    virsh(cloud, "destroy")
    cloud.json("reconcile", code=None)
    assert revert(cloud, "first")["vm_status"] == "SHUTOFF"
    delete(cloud, "off")
    cloud.fifty("vm", "start", VM)
    assert said(cloud) == "at first"
    delete(cloud, "first")
    assert said(cloud) == "at first"


def test_inside_of_the_file(clean: Cloud) -> None:
    cloud = clean
    boot = answers(cloud)
    one = take(cloud, "inside", "--internal")
    assert (one["kind"], one["memory"]) == ("internal", True)
    assert take(cloud, "beside", code=1)["error"] == "Conflict"
    write(cloud, "later")
    revert(cloud, "inside")
    assert (answers(cloud), said(cloud)) == (boot, "at first")
    write(cloud, "later")
    virsh(cloud, "destroy")
    take(cloud, "off", "--internal")
    cloud.json("reconcile", code=None)
    cloud.fifty("vm", "start", VM)
    write(cloud, "latest")
    assert revert(cloud, "off")["vm_status"] == "ACTIVE"
    answers(cloud)
    assert said(cloud) == "later"
    assert len(listed(cloud)) == 2
    assert layers(cloud) == ["disk.qcow2"]


def test_killed_and_failed_at_every_point_of_taking_and_deleting(clean: Cloud) -> None:
    cloud = clean
    boot = answers(cloud)
    steps = PLANS["snapshot"][0].catalogue.steps
    create = ("vm", "snapshot", "create", VM)
    with forked(cloud) as fifty:
        for number in steps:
            for when in ("before", "after"):
                name = f"killed-{number}-{when}"
                code = fifty(*create, name, fault=f"{number}:kill:{when}")
                assert code == -signal.SIGKILL, name
                # It runs on, with all that it has written.
                write(cloud, name)
                assert fifty("reconcile") == 0
                assert [one["status"] for one in listed(cloud)] == ["available"]
                words = ("vm", "snapshot", "delete", VM, name)
                undo = "before" if when == "after" else "after"
                if steps[number].undo:
                    assert fifty(*words, fault=f"u{number}:kill:{undo}") == -signal.SIGKILL
                    assert fifty("reconcile") == 0
                else:
                    assert fifty(*words) == 0
                assert listed(cloud) == []
                assert layers(cloud) == ["disk.qcow2"]
                assert said(cloud) == name
            for when in ("before", "after"):
                options = (f"failed-{number}-{when}", "--memory")
                assert fifty(*create, *options, fault=f"{number}:raise:{when}") == 1
                assert listed(cloud) == []
                assert layers(cloud) == ["disk.qcow2"]
        # Each step done twice has the effect of once, and so has each undo.
        assert fifty(*create, "twice", fault=twice("snapshot")) == 0
        assert len(layers(cloud)) == 2
        words = ("vm", "snapshot", "delete", VM, "twice")
        assert fifty(*words, fault=twice("snapshot", "u")) == 0
    assert answers(cloud) == boot


def test_killed_and_failed_at_every_point_of_a_revert(clean: Cloud) -> None:
    cloud = clean
    take(cloud, "base")
    steps = PLANS["revert"][0].catalogue.steps
    last = max(steps)
    words = ("vm", "snapshot", "revert", VM, "base")
    with forked(cloud) as fifty:
        for number in [number for number in steps if number > 1]:
            # What was done is undone, and the guest is as it was.
            write(cloud, f"before {number}")
            if number < last:
                assert fifty(*words, fault=f"{number}:raise:after") == 1
                answers(cloud)
                assert said(cloud) == f"before {number}"
            assert fifty(*words, fault=f"{number}:kill:after") == -signal.SIGKILL
            if number in (3, 4):
                # Stopped in between, it is off; and it can be started.
                cloud.fifty("vm", "start", VM)
                assert said(cloud) == f"before {number}"
            assert fifty("reconcile") == 0
            answers(cloud)
            assert said(cloud) == "at first"
            assert [one["status"] for one in listed(cloud)] == ["available"]
            assert len(layers(cloud)) == 2
            assert cloud.instance(VM).status is InstanceStatus.ACTIVE
        write(cloud, "before the last")
        assert fifty(*words, fault=twice("revert")) == 0
        answers(cloud)
        assert said(cloud) == "at first"


def test_deleted_with_its_snapshots_nothing_is_left(cloud: Cloud) -> None:
    before = cloud.inventory()
    cloud.fifty("vm", "create", "brief", "--image", "micro", "--flavor", "tiny", "--network", "lab")
    the_id = cloud.instance("brief").id
    words = ("vm", "snapshot", "create", "brief")
    cloud.fifty(*words, "kept", "--memory")
    killed = cloud.run(*words, "half", fault="3:kill:after")
    assert killed.returncode == -signal.SIGKILL
    cloud.fifty("vm", "delete", "brief")
    assert differences(before, cloud.inventory()) == []
    assert cloud.world.store.snapshots.of(the_id) == []
    assert cloud.json("reconcile")["reconciled"] == []
    assert cloud.json("audit")["clean"]

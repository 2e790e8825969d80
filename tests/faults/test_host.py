"""QEMU killed, dnsmasq killed, the disk full: what ends where, and what the error says."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from blocks.errors import NO_ROOM_HINT
from deployments import processes
from tests.cloud import Cloud
from tests.faults.building import Building, begun
from tests.inventory import differences
from tests.waiting import eventually

pytestmark = pytest.mark.e2e

CREATE = ("vm", "create", "--image", "micro", "--network", "lab")
KIB = 1024


def kill(pid: int) -> None:
    """SIGKILL, and wait until the process is gone."""
    process = processes.identify(pid)
    assert process is not None, "it was to be alive"
    os.kill(pid, signal.SIGKILL)
    assert processes.wait_for_end(process, 60)


def qemu_of(cloud: Cloud, name: str) -> int:
    """The QEMU process of a VM: the one that has its directory in its arguments."""
    directory = f"{cloud.home / 'instances' / cloud.instance(name).id}/"
    found = [
        int(entry.name)
        for entry in Path("/proc").glob("[0-9]*")
        for words in [processes.command_line(int(entry.name))]
        if words and "qemu-system" in words[0] and any(directory in word for word in words)
    ]
    assert len(found) == 1, found
    return found[0]


def test_qemu_killed_while_the_guest_boots(cloud: Cloud) -> None:
    before = cloud.inventory()
    with Building(cloud, "shot", *CREATE, "shot") as build:
        build.until(range(47, 48), begun)
        console = cloud.home / "instances" / cloud.instance("shot").id / "console.log"
        eventually(lambda: console.exists() and console.stat().st_size, "words of the firmware")
        kill(qemu_of(cloud, "shot"))
        fault = build.end(1)
    assert (fault["error"], fault["step"]) == ("HostFault", 47)
    assert "QEMU has died" in fault["message"]
    assert "/var/log/libvirt/qemu" in fault["hint"]
    assert fault["details"], "the console's last lines"
    assert cloud.json("vm", "show", "shot")["status"] == "ERROR"
    assert differences(before, cloud.inventory()) == []


def test_qemu_killed_before_the_guest_runs(cloud: Cloud) -> None:
    """Each build is killed at a step, its QEMU too, and reconcile goes on with it."""
    before = cloud.inventory()
    for step, fault in ((44, "44:kill:after"), (45, "45:kill"), (46, "46:kill")):
        name = f"dead-{step}"
        assert cloud.run(*CREATE, name, fault=fault).returncode == -signal.SIGKILL
        kill(qemu_of(cloud, name))
    document = cloud.json("reconcile")
    found = {item["name"]: item["state"] for item in document["reconciled"]}
    ends = {name: state for name, state in found.items() if name.startswith("dead-")}
    # 44 had no checkpoint: it is done again, and starts another QEMU.
    assert ends == {"dead-44": "complete", "dead-45": "undone", "dead-46": "undone"}
    assert cloud.ssh("dead-44", "hostname").strip() == "dead-44"
    for step in (45, 46):
        fault = cloud.json("vm", "show", f"dead-{step}")["fault"]
        assert (fault["error"], fault["step"]) == ("HostFault", step)
        assert "crashed" in fault["message"]
    cloud.fifty("vm", "delete", "dead-44")
    assert differences(before, cloud.inventory()) == []


def dnsmasq_of(cloud: Cloud, name: str) -> int:
    """The dnsmasq of a VM's first network."""
    network = cloud.home / "networks" / cloud.ports(name)[0].network_id
    return int((network / "dhcp" / "dnsmasq.pid").read_text())


def test_dnsmasq_killed_is_brought_back_by_the_build_that_needs_it(cloud: Cloud) -> None:
    with Building(cloud, "leased", *CREATE, "leased") as build:
        # The network was proven at 38; the guest asks for its address while 47 or 48 waits.
        build.until(range(41, 51), begun)
        killed = dnsmasq_of(cloud, "leased")
        kill(killed)
        assert build.end(0)["status"] == "ACTIVE"
    changes = [change.what for change in cloud.journal(cloud.build("leased"))[48].changes]
    assert len(changes) == 1 and changes[0].startswith("Started dnsmasq in ")

    # A VM that runs needs it at its next renewal: the next build on its network is in time.
    again = dnsmasq_of(cloud, "leased")
    assert again != killed
    kill(again)
    renew = "udhcpc -i eth0 -n -q -t 3 -T 1 -s /bin/true 2>&1 || true"
    assert "no lease" in cloud.ssh("leased", renew)
    cloud.fifty(*CREATE, "next", fault="41:raise", code=1)
    address = cloud.ports("leased")[0].addresses[0].address
    assert f"lease of {address} obtained" in cloud.ssh("leased", renew)


@contextmanager
def small(directory: Path, size: int) -> Iterator[None]:
    """A file system of so many bytes in this place, as long as the block runs."""
    directory.mkdir(parents=True, exist_ok=True)
    options = f"size={size},mode=0711"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "fifty-small", directory], check=True)
    try:
        yield
    finally:
        # virtlogd may still be closing a console's log.
        eventually(
            lambda: subprocess.run(["umount", directory], check=False).returncode == 0,
            f"umount of {directory}",
        )


@pytest.fixture(scope="module", name="overlay_size")
def _overlay_size(tmp_path_factory: pytest.TempPathFactory) -> int:
    """The bytes that an overlay takes when it is new: this QEMU's business."""
    disk = tmp_path_factory.mktemp("overlay") / "disk"
    words = ["qemu-img", "create", "-q", "-f", "qcow2"]
    subprocess.run([*words, disk, "1G"], check=True)
    return disk.stat().st_blocks * 512


@pytest.mark.parametrize(
    ("step", "place", "beside_overlay"),
    [(26, "images/cache", None), (27, "instances", -64 * KIB), (29, "instances", 48 * KIB)],
    ids=["base", "overlay", "config-drive"],
)
def test_disk_full_while_files_are_written(
    cloud: Cloud,
    tmp_path: Path,
    overlay_size: int,
    step: int,
    place: str,
    beside_overlay: int | None,
) -> None:
    user_data = tmp_path / "user-data"
    user_data.write_text(f"#!/bin/sh\n# {secrets.token_hex(30 * KIB)}\n")
    whole = cloud.inventory()
    size = KIB * KIB if beside_overlay is None else overlay_size + beside_overlay
    with small(cloud.home / place, size):
        before = cloud.inventory()
        words = (*CREATE, "crowded", "--user-data", str(user_data))
        fault = cloud.json(*words, code=1)
        assert (fault["error"], fault["step"]) == ("HostFault", step)
        assert "No space left on device" in fault["message"]
        assert "\n" not in fault["message"]
        assert fault["hint"] == NO_ROOM_HINT
        assert cloud.json("vm", "show", "crowded")["status"] == "ERROR"
        assert differences(before, cloud.inventory()) == []
        assert list((cloud.home / place).iterdir()) == []
    assert differences(whole, cloud.inventory()) == []


def test_disk_full_while_the_guest_writes(cloud: Cloud, overlay_size: int) -> None:
    """An overlay takes room only when the guest writes: then there is none."""
    whole = cloud.inventory()
    with small(cloud.home / "instances", overlay_size + 192 * KIB):
        before = cloud.inventory()
        fault = cloud.json(*CREATE, "thin", code=1)
        assert fault["error"] == "HostFault" and fault["step"] in (47, 48, 49)
        assert "could not store what it wrote" in fault["message"]
        assert fault["hint"] == NO_ROOM_HINT
        assert fault["details"], "the console's last lines"
        assert differences(before, cloud.inventory()) == []
    assert differences(whole, cloud.inventory()) == []

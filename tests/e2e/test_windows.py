"""An image of Windows in the catalogue: looked into, and given the machine that it needs.

There is no Windows here. Its disk is one that the test has made, by NTFS' own programs and with
hives as Windows has them; what runs in its VM is micro.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from lxml import etree

from blocks.windows.check import WANTED
from blocks.windows.disk import HIVES
from tests.cloud import Cloud
from tests.hives import hive
from tests.host.test_windows_disk import disk, ntfs
from tests.image_maker import run
from tests.unit.test_windows_check import CONF, Hives, whole

pytestmark = pytest.mark.e2e


@pytest.fixture(name="made")
def _made(cloud: Cloud) -> Iterator[list[str]]:
    """Names of the images that a test made; deleted after its VMs."""
    names: list[str] = []
    yield names
    cloud.delete([vm["id"] for vm in cloud.json("vm", "list") if vm["image"] in names])
    for name in names:
        cloud.fifty("image", "delete", name)


def windows(folder: Path, hives: Hives) -> Path:
    """A disk with Windows' two partitions."""
    system = {where: hive(hives[name]) for name, where in HIVES.items()}
    boot = ntfs(folder, {"Boot/BCD": hive(hives["BCD"])})
    return disk(folder, boot, ntfs(folder, {**system, WANTED[0]: CONF.encode()}))


def test_its_check_reads_the_registry_on_its_disk(
    cloud: Cloud, made: list[str], tmp_path: Path
) -> None:
    hives = whole()
    cloud.fifty("image", "import", "server", str(windows(tmp_path, hives)), "--os", "windows")
    made.append("server")
    report = cloud.json("image", "check", "server")
    assert {one["verdict"] for one in report["findings"]} == {"pass"}
    assert (report["method"], len(report["findings"])) == ("ntfscat", 12)
    shown = cloud.json("image", "show", "server")["report"]["check"]["findings"]
    [system] = [one["evidence"] for one in shown if one["point"] == "windows"]
    assert system == ["Windows Server 2022 Standard, build 20348"]

    hives["SYSTEM"]["ControlSet002"]["Control"]["Terminal Server"]["fDenyTSConnections"] = 1
    cloud.fifty("image", "import", "deaf", str(windows(tmp_path, hives)), "--os", "windows")
    made.append("deaf")
    report = cloud.json("image", "check", "deaf", code=3)
    failed = {one["point"]: one for one in report["findings"] if one["verdict"] != "pass"}
    assert list(failed) == ["remote-desktop"]
    assert "fDenyTSConnections 1" in " ".join(failed["remote-desktop"]["evidence"])


def clock_and_screens(cloud: Cloud, name: str) -> tuple[str | None, int]:
    xml = run("virsh", "-c", "qemu:///system", "dumpxml", cloud.instance(name).id)
    domain = etree.fromstring(xml.encode())
    clock = domain.find("clock")
    assert clock is not None
    return clock.get("offset"), len(domain.findall("devices/video"))


def test_its_vm_has_the_machine_that_it_needs(
    cloud: Cloud, made: list[str], tmp_path: Path
) -> None:
    # Not from where it lies: what is Fifty Steps' own is not imported.
    file = shutil.copy(cloud.json("image", "show", "micro")["path"], tmp_path / "panes.qcow2")
    cloud.fifty("image", "import", "panes", str(file), "--os", "windows")
    made.append("panes")
    words = ("--image", "panes", "--flavor", "tiny", "--network", "lab")
    vm = cloud.json("vm", "create", "win", *words)
    assert vm["status"] == "ACTIVE"
    assert clock_and_screens(cloud, "win") == ("localtime", 1)
    # What is plugged in later, and a start, compose its definition anew.
    cloud.fifty("vm", "attach-volume", "win", "--size", "1")
    cloud.world.hypervisor.destroy(vm["id"])
    cloud.fifty("vm", "start", "win")
    assert clock_and_screens(cloud, "win") == ("localtime", 1)
    assert cloud.ssh("win", "ls /sys/block/vdb/size") == "/sys/block/vdb/size\n"

    cloud.fifty("image", "set", "panes", "--property", "hw_disk_bus=ide")
    told = cloud.json("vm", "create", "none", *words, code=1)
    assert told["error"] == "NoValidHost"
    assert any("hw_disk_bus=ide, which is none of virtio, sata" in one for one in told["details"])

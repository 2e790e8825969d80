"""`fifty image install`: a real unattended installation, by an installer of 50 bytes.

The medium is the test's own (see `tests.host.test_installer`): what boots from it writes the
boot sector of "the system" onto the empty disk, and shuts the machine down.

`INSTALL=all tests/run tests/e2e/test_install.py` stops it in more places. An installation that is
not through in time is in test_unattended.py.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from lxml import etree

from tests.cloud import Cloud
from tests.forked import forked
from tests.host.hypervisor_lab import boot_sector
from tests.host.test_installer import INSTALLED, POWER_OFF, installer
from tests.inventory import differences

pytestmark = pytest.mark.e2e

SMALL = ("--disk", "1", "--ram", "128", "--cpus", "1", "--timeout", "20")
GIB = 1024**3
ALL = os.environ.get("INSTALL") == "all"


@pytest.fixture(name="quick", scope="module")
def _quick(site_cloud: Cloud) -> Iterator[Cloud]:
    """The site, with commands that cost no start of an interpreter."""
    with forked(site_cloud) as quick:
        yield quick


@pytest.fixture
def medium(tmp_path: Path) -> Path:
    return installer(tmp_path / "installer.iso", POWER_OFF)


def first_sector(disk: Path, tmp_path: Path) -> bytes:
    """The first sector of a qcow2, by QEMU's own program."""
    raw = tmp_path / "first"
    words = ["qemu-img", "dd", "-f", "qcow2", "-O", "raw", "bs=512", "count=1"]
    subprocess.run([*words, f"if={disk}", f"of={raw}"], check=True)
    return raw.read_bytes()[:512]


def machine_of(cloud: Cloud, image: str) -> etree._Element:
    """An installer's machine, as libvirt knows it."""
    hypervisor = cloud.world.hypervisor
    [found] = [one for one in hypervisor.inventory() if one.name.endswith(f"-{image}")]
    return etree.fromstring(str(hypervisor.definition(str(found.owner))))


def test_what_was_installed_is_an_image_and_the_machine_is_gone(
    cloud: Cloud, medium: Path, tmp_path: Path
) -> None:
    before = cloud.inventory()
    answers = tmp_path / "user-data"
    answers.write_text("#cloud-config\nautoinstall: {version: 1}\n")
    words = ("image", "install", "tiny-system", str(medium), *SMALL, "--answers", str(answers))
    image = cloud.json(*words)
    assert (image["status"], image["os"], image["login_user"]) == ("active", "linux", "root")
    assert image["virtual_size_bytes"] == GIB
    assert image["size_bytes"] < 1024**2, "what is empty takes no room"
    assert image["source"] == "installed from installer.iso"
    assert first_sector(Path(image["path"]), tmp_path) == boot_sector(INSTALLED)
    assert cloud.world.hypervisor.state(image["id"]) is None
    assert not cloud.world.directories.path(image["id"]).exists()
    told = cloud.json(*words, code=1)
    assert told["error"] == "Conflict" and "there already" in told["message"]
    cloud.fifty("image", "delete", "tiny-system")
    assert differences(before, cloud.inventory()) == []


def test_what_does_not_boot_is_no_image(quick: Cloud, tmp_path: Path) -> None:
    """An installer that gives up says so on its console, and ends as one that is through."""
    cloud, before = quick, quick.inventory()
    medium = installer(tmp_path / "vain.iso", POWER_OFF, "No answers: I give up", bytes(512))
    told = cloud.json("image", "install", "vain", str(medium), *SMALL, code=1)
    assert told["error"] == "GuestFault" and "left nothing on its disk" in told["message"]
    assert any("No answers: I give up" in line for line in told["details"])
    assert "vain" not in cloud.fifty("image", "list")
    assert differences(before, cloud.inventory()) == []


FAULTS = ("34:raise:after", "32:raise:after", "33:raise:after", "35:raise:after", "36:raise")


@pytest.mark.parametrize("fault", FAULTS if ALL else FAULTS[:1])
def test_a_failed_one_leaves_nothing(quick: Cloud, medium: Path, fault: str) -> None:
    cloud, before = quick, quick.inventory()
    cloud.fifty("image", "install", "broken", str(medium), *SMALL, fault=fault, code=1)
    assert differences(before, cloud.inventory()) == []
    assert "broken" not in cloud.fifty("image", "list")


KILLS = ("34:kill:after", "32:kill:after", "33:kill:after", "35:kill:after", "37:kill:after")


@pytest.mark.parametrize("fault", KILLS if ALL else KILLS[:1])
def test_a_killed_one_is_gone_on_with(quick: Cloud, medium: Path, fault: str) -> None:
    """Also of an installer that knows no virtio: its VMs are given what it was."""
    cloud, before = quick, quick.inventory()
    words = ("image", "install", "killed", str(medium), *SMALL, "--no-virtio")
    assert cloud.run(*words, fault=fault).returncode == -9
    if fault[:2] in ("33", "34", "35"):
        machine = machine_of(cloud, "killed")
        bus = [one.get("bus") for one in machine.iterfind("devices/disk[@device='disk']/target")]
        told = (bus, machine.findtext("memory"), machine.findtext("vcpu"))
        assert told == (["sata"], str(128 * 1024), "1")
    ended = {one["name"]: one["state"] for one in cloud.json("reconcile")["reconciled"]}
    assert ended == {"killed": "complete"}
    image = cloud.json("image", "show", "killed")
    assert image["status"] == "active"
    assert image["properties"] == {"hw_disk_bus": "sata", "hw_vif_model": "e1000e"}
    cloud.fifty("image", "delete", "killed")
    assert differences(before, cloud.inventory()) == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (("/nonexistent.iso",), "cannot be read"),
        (("/dev/zero",), "is not a regular file"),
        (("/etc/passwd",), "is no ISO 9660 volume"),
    ],
)
def test_a_medium_that_is_none_is_refused(
    quick: Cloud, changed: tuple[str, ...], words: str
) -> None:
    cloud, before = quick, quick.inventory()
    told = cloud.json("image", "install", "none", *changed, *SMALL, code=1)
    assert told["error"] == "InvalidRequest" and words in told["message"]
    assert differences(before, cloud.inventory()) == []

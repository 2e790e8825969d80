"""An operating system installed unattended from its ISO: a real installer, on an empty disk.

The medium is the tests' own (see `tests.installer_medium`): firmware, boot loader, a kernel with
drivers for drives and disks, and an installer that partitions, makes a file system, unpacks a
system, makes it boot, and does what the answers on the second medium say. What it made is an
image as any other: looked into, booted, logged in to.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.guest import login_command
from blocks.marks import dhcp_namespace
from tests.cloud import TIMEOUT_S, Cloud
from tests.image_maker import run
from tests.installer_medium import make_medium
from tests.inventory import differences
from tests.prefect_api import api
from tests.waiting import eventually

pytestmark = pytest.mark.e2e

ANSWERS = """# A small server
text
zerombr
clearpart --all --initlabel
part / --fstype=ext4 --label=golden-root --grow
network --hostname=golden
bootloader --append="fifty.installed=yes"
user --name=operator --uid=1200
sshkey --username=operator "{key}"
%post
echo "post ran on $(cat /etc/hostname) as $(id -u)" >/etc/motd
%end
poweroff
"""
SMALL = ("--disk", "1", "--ram", "256", "--cpus", "1", "--login-user", "root")
STEPS = (
    "31 · Validate the install request",
    "32 · Make the installer's disk and media",
    "33 · Define the installer's machine",
    "34 · Run the installer",
    "35 · Capture the disk",
    "36 · Record the installed image",
    "37 · Clear the installer's machine away",
)


@pytest.fixture(scope="module")
def medium(site_cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("medium")
    return make_medium(folder / "halcyon-1.0.iso", site_cloud.home / "images/packages", folder)


@pytest.fixture(scope="module")
def before(site_cloud: Cloud, medium: Path) -> dict[str, list[str]]:
    """The inventory before any of it; the medium is no part of it."""
    del medium
    return site_cloud.inventory()


@pytest.fixture(scope="module")
def nobody(
    site_cloud: Cloud, medium: Path, before: dict[str, list[str]]
) -> Iterator[subprocess.Popen[str]]:
    """An installation without answers, with a minute's time, that goes on beside the others."""
    del before
    command = [str(Path(sys.executable).with_name("fifty")), "image", "install", "nobody"]
    with subprocess.Popen(
        [*command, str(medium), *SMALL, "--timeout", "1", "--json"],
        env=site_cloud.environment(""), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        yield process
        process.kill()


@pytest.fixture
def tidy(site_cloud: Cloud) -> Iterator[None]:
    """Whatever becomes of the test: first its VMs go, and then the image."""
    yield
    for image in site_cloud.json("image", "list"):
        if image["name"] == "golden":
            site_cloud.fifty("image", "delete", "golden")


def on_disk(raw: Path, request: str) -> str:
    """What debugfs tells of the first partition's file system."""
    return run("debugfs", "-R", request, f"{raw}?offset={2048 * 512}")


def operator(cloud: Cloud, name: str, key: Path, command: str) -> str:
    """Run a command in a guest as the account that the answers asked for, with its own key."""
    instance, port = cloud.instance(name), cloud.ports(name)[0]
    words = login_command(
        dhcp_namespace(port.network_id),
        "operator",
        port.addresses[0].address,
        cloud.home / "instances" / instance.id / "known_hosts",
        ["-i", str(key), "-o", "BatchMode=yes"],
    )
    done = subprocess.run(
        [*words, command],
        capture_output=True, text=True, timeout=TIMEOUT_S, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout


def in_prefect() -> bool:
    """Whether the run's steps are in Prefect, in order, and what the installer said in its log.

    Both reach its API a while after the fact.
    """
    tasks, log = told_by_prefect("install-image golden")
    steps = [name for name in tasks if name[0].isdigit()]
    said = any("installer: " in line or "Power down" in line for line in log)
    return steps == list(STEPS) and said


def told_by_prefect(flow_run: str) -> tuple[list[str], list[str]]:
    """The tasks of the flow run of that name, and the lines of its log, in order."""
    named = {"flow_runs": {"name": {"any_": [flow_run]}}}
    (found,) = api("POST", "/flow_runs/filter", json=named).json()
    wanted = {"logs": {"flow_run_id": {"any_": [found["id"]]}}, "sort": "TIMESTAMP_ASC"}
    tasks = api("POST", "/task_runs/filter", json={**named, "sort": "EXPECTED_START_TIME_ASC"})
    lines = api("POST", "/logs/filter", json=wanted).json()
    return [one["name"] for one in tasks.json()], [one["message"] for one in lines]


@pytest.mark.usefixtures("tidy")
def test_a_system_is_installed_as_its_answers_say_and_boots(
    cloud: Cloud,
    medium: Path,
    before: dict[str, list[str]],
    nobody: subprocess.Popen[str],
    tmp_path: Path,
) -> None:
    key, answers, raw = tmp_path / "key", tmp_path / "ks.cfg", tmp_path / "disk.raw"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    answers.write_text(ANSWERS.format(key=key.with_suffix(".pub").read_text().strip()))
    words = ("image", "install", "golden", str(medium), *SMALL)
    told = cloud.run(*words, "--answers", str(answers), "--label", "OEMDRV", "--json")
    assert told.returncode == 0, (told.stdout, told.stderr)
    image = json.loads(told.stdout)

    assert (image["status"], image["os"], image["login_user"]) == ("active", "linux", "root")
    assert image["source"] == "installed from halcyon-1.0.iso"
    assert image["virtual_size_bytes"] == 1024**3
    shown = cloud.fifty("image", "show", "golden")
    assert "installed from halcyon-1.0.iso" in shown
    eventually(in_prefect, "all steps and the installer's words in Prefect")

    # Nothing of the machine is there any more: libvirt's domain, its media, its answers.
    assert cloud.world.hypervisor.state(image["id"]) is None
    assert not cloud.world.directories.path(image["id"]).exists()

    # The disk, as other programs read it.
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", image["path"], raw)
    assert re.search(r"volume name: +golden-root\n", on_disk(raw, "show_super_stats -h"))
    assert on_disk(raw, "cat /etc/hostname") == "golden\n"
    assert on_disk(raw, "cat /etc/motd") == "post ran on golden as 0\n"
    assert "fifty.installed=yes" in on_disk(raw, "cat /boot/extlinux/extlinux.conf")

    # The static check finds the key that the answers put there, and all else in order.
    report = cloud.json("image", "check", "golden", code=3)
    wrong = [one for one in report["findings"] if one["verdict"] != "pass"]
    assert [one["point"] for one in wrong] == ["keys"], wrong
    assert "/home/operator/.ssh/authorized_keys" in json.dumps(wrong)

    cloud.fifty(
        "vm", "create", "silver", "--image", "golden", "--network", "lab", "--flavor", "limited"
    )
    assert cloud.ssh("silver", "hostname").strip() == "silver", "a VM has its own name"
    assert "fifty.installed=yes" in cloud.ssh("silver", "cat /proc/cmdline").split()
    size = cloud.ssh("silver", "df -k / | tail -1").split()[1]
    assert int(size) > 1.8 * 1024**2, "its file system has grown to the flavor's disk"
    assert operator(cloud, "silver", key, "id -un; id -u; pwd").split() == [
        *("operator", "1200", "/home/operator"),
    ]
    xml = run("virsh", "-c", "qemu:///system", "dumpxml", cloud.instance("silver").id)
    assert ".iso" in xml and "answers.iso" not in xml and "installer.iso" not in xml

    cloud.delete(["silver"])
    cloud.fifty("image", "delete", "golden")
    assert nobody.wait(TIMEOUT_S) == 1
    assert differences(before, cloud.inventory()) == []


def test_without_answers_it_asks_and_waits_until_its_time_is_over(
    cloud: Cloud, before: dict[str, list[str]], nobody: subprocess.Popen[str]
) -> None:
    said, wrong = nobody.communicate(timeout=TIMEOUT_S)
    assert nobody.returncode == 1, (said, wrong)
    told = json.loads(said)
    assert told["error"] == "GuestFault"
    assert "was not through within 60 s" in told["message"]
    assert any("Which language do you speak?" in line for line in told["details"]), told
    assert "nobody" not in cloud.fifty("image", "list")
    assert differences(before, cloud.inventory()) == []

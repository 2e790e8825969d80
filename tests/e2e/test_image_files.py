"""Images that are looked into and changed without booting them, and then boot."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cloud import Cloud
from tests.image_maker import run
from tests.waiting import eventually

pytestmark = pytest.mark.e2e

CREATE = ("--flavor", "tiny", "--network", "lab")
HOST_KEY = "dropbearkey -y -f /etc/dropbear/host_key | grep ^ssh"


@pytest.fixture(name="made")
def _made(cloud: Cloud) -> Iterator[list[str]]:
    """Names of the images that a test made; deleted after its VMs."""
    names: list[str] = []
    yield names
    vms = cloud.json("vm", "list")
    cloud.delete([vm["id"] for vm in vms if vm["image"] in names])
    for name in names:
        cloud.fifty("image", "delete", name)


def test_micro_passes_every_point_of_the_check(cloud: Cloud) -> None:
    report = cloud.json("image", "check", "micro")
    assert {one["verdict"] for one in report["findings"]} == {"pass"}
    assert report["sha256"] == cloud.json("image", "show", "micro")["sha256"]


def test_an_edited_image_boots_and_a_guest_becomes_an_image(
    cloud: Cloud, made: list[str], tmp_path: Path
) -> None:
    (tmp_path / "told").write_text("put there by an edit\n")
    cloud.fifty("image", "edit", "micro", "edited", "--inject", f"{tmp_path / 'told'}:/etc/told")
    made.append("edited")
    cloud.fifty("vm", "create", "first", "--image", "edited", *CREATE)
    assert cloud.ssh("first", "cat /etc/told") == "put there by an edit\n"
    key = cloud.ssh("first", HOST_KEY)
    cloud.ssh("first", "echo secret > /root/.bash_history; echo mine > /root/work; sync")

    # It is shut down in order, and its disk is taken for an image.
    cloud.ssh("first", "(sleep 1; poweroff) >/dev/null 2>&1 </dev/null &")
    first = cloud.instance("first").id
    eventually(
        lambda: run("virsh", "-c", "qemu:///system", "domstate", first).strip() == "shut off",
        "guest that is off",
    )
    disk = cloud.home / "instances" / first / "disk.qcow2"
    run("qemu-img", "convert", "-f", "qcow2", "-O", "qcow2", disk, tmp_path / "captured.qcow2")
    cloud.fifty("image", "import", "captured", str(tmp_path / "captured.qcow2"))
    made.append("captured")
    report = cloud.json("image", "check", "captured", code=3)
    failed = {one["point"] for one in report["findings"] if one["verdict"] == "fail"}
    assert failed == {"host-keys", "keys"}

    cloud.fifty("image", "edit", "captured", "clean", "--generalise")
    made.append("clean")
    report = cloud.json("image", "check", "clean")
    assert {one["verdict"] for one in report["findings"]} == {"pass"}
    cloud.fifty("vm", "create", "second", "--image", "clean", *CREATE)
    assert cloud.ssh("second", "cat /root/work") == "mine\n"
    assert cloud.ssh("second", "hostname") == "second\n"
    assert cloud.ssh("second", HOST_KEY) != key
    assert cloud.ssh("second", "ls -A /root/.bash_history 2>/dev/null || true") == ""

"""A VM whose flavor asks for a flat disk: it needs its image's base no more once it is made."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from blocks.images.cache import Idle
from blocks.images.files import size_on_disk
from tasks.cache_cleaning import needed_bases
from tests.cloud import Cloud
from tests.image_maker import run
from tests.inventory import differences

pytestmark = pytest.mark.e2e

MIB = 1 << 20
CREATE = ("vm", "create", "copy", "--image", "plain", "--flavor", "flat", "--network", "lab")
#: Keeps what may be needed, however long it was not.
KEEP = Idle(older_than_s=float("inf"), most_bytes=float("inf"))


@pytest.fixture(name="flat")
def _flat(cloud: Cloud) -> Iterator[Cloud]:
    """A flat flavor, and an image that nobody else makes VMs of."""
    flavor = ("--vcpus", "1", "--ram", "256", "--disk", "1", "--disk-mode", "flat")
    cloud.fifty("flavor", "create", "flat", *flavor)
    cloud.fifty("image", "edit", "micro", "plain", "--remove", "/etc/shells")
    yield cloud
    cloud.delete(vm["id"] for vm in cloud.json("vm", "list") if vm["name"] == "copy")
    for image in cloud.json("image", "list"):
        if image["name"] in ("taken", "plain"):
            cloud.fifty("image", "delete", image["name"])
    cloud.fifty("flavor", "delete", "flat")


def chain(disk: Path) -> list[dict[str, Any]]:
    """A disk and what is below it, as QEMU sees it."""
    words = ("qemu-img", "info", "-U", "--backing-chain", "--output=json", "-f", "qcow2", disk)
    return list(json.loads(run(*words)))


def clean(cloud: Cloud) -> list[str]:
    """Remove the bases that nothing needs, as the flow `clean-cache` does."""
    world = cloud.world
    return list(world.images.remove_other_bases(lambda: needed_bases(world.store), KEEP))


def test_a_flat_disk_needs_no_base(flat: Cloud) -> None:
    cloud = flat
    plain = cloud.world.store.images.find(cloud.world.store.tenants.id_of("default"), "plain")
    base = cloud.world.images.cached(plain)
    before = cloud.inventory()
    # Undone, nothing is left of the copy; killed after it was made, it is made once.
    cloud.fifty(*CREATE, fault="28:raise", code=1)
    cloud.fifty("vm", "delete", "copy")
    assert differences(before, cloud.inventory()) == []
    cloud.fifty(*CREATE, fault="27:kill:after", code=None)
    disk = cloud.home / "instances" / cloud.instance("copy").id / "disk.qcow2"
    made = disk.stat().st_ino
    assert plain.sha256 in needed_bases(cloud.world.store).used
    cloud.fifty("vm", "resume", "copy")
    assert disk.stat().st_ino == made

    [seen] = chain(disk)
    assert seen["virtual-size"] == 1024 * MIB
    assert size_on_disk(disk) < 200 * MIB
    assert cloud.json("vm", "show", "copy")["disk_mode"] == "flat"
    cloud.ssh("copy", "echo mine > /root/mine; sync")
    cloud.fifty("vm", "snapshot", "create", "copy", "one")
    cloud.ssh("copy", "echo more > /root/more; sync")
    [layer] = disk.parent.glob("disk-*.qcow2")
    assert [one["filename"] for one in chain(layer)] == [str(layer), str(disk)]
    cloud.fifty("image", "capture", "copy", "taken")
    cloud.fifty("vm", "snapshot", "delete", "copy", "one")
    assert cloud.json("audit")["clean"]

    # No new VM is made from the image: its base goes, and the guest does not notice.
    cloud.fifty("image", "deactivate", "plain", "--why", "a test")
    assert base.exists()
    assert base.name in clean(cloud)
    assert not base.exists()
    run("virsh", "-c", "qemu:///system", "destroy", cloud.instance("copy").id)
    cloud.fifty("vm", "start", "copy")
    assert cloud.ssh("copy", "cat /root/mine /root/more") == "mine\nmore\n"
    assert [one["filename"] for one in chain(disk)] == [str(disk)]
    assert cloud.json("audit")["clean"]

"""A whole site for the tests that boot guests: image, networks, router, all by `fifty`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.resources import Flavor, FlavorLimits
from tests import packages, sessions
from tests.cloud import Cloud
from tests.forked import forked
from tests.inventory import differences

EXTERNAL = ("external", "--external", "--type", "flat", "--cidr", "172.29.77.0/24")
LAB = ("lab", "--cidr", "10.77.1.0/24", "--router", "gate", "--external-network", "external")
LIMITED = Flavor(
    name="limited",
    vcpus=1,
    ram_mib=256,
    disk_gib=2,
    limits=FlavorLimits(cpu_shares=512, disk_iops=5000, net_kib_s=50_000),
)
INJECTED = "put there before the first boot\n"
USER_DATA = "#!/bin/sh\necho ran > /root/user-data-ran\n"


@pytest.fixture(scope="session", name="site_cloud")
def _site_cloud(
    fifty_home: Path, session_directory: Path, libvirtd: str, prefect_server: str
) -> Iterator[Cloud]:
    """The site, initialized, with the image `micro`; everything removed at the end."""
    del libvirtd
    if packages.VARIABLE in os.environ:
        packages.give(Path(os.environ[packages.VARIABLE]), fifty_home)
    cloud = Cloud(fifty_home, prefect_server)
    document = cloud.json("init", "--api-url", prefect_server)
    sessions.note_site(session_directory, document["site"])
    before = cloud.inventory()
    with forked(cloud) as quick:
        quick.fifty("image", "build", "micro")
        quick.fifty("network", "create", *EXTERNAL)
        quick.fifty("network", "create", *LAB)
        quick.fifty("network", "create", "twin", "--cidr", "10.77.1.0/24")
        quick.fifty("network", "create", "side", "--cidr", "10.77.2.0/24")
        cloud.world.store.flavors.put(LIMITED)
        yield cloud
        quick.delete(quick.vms())
        for network in ("side", "twin", "lab"):
            quick.fifty("network", "delete", network)
        quick.fifty("router", "delete", "gate")
        quick.fifty("network", "delete", "external")
        for image in quick.json("image", "list", "--all-tenants"):
            quick.fifty("image", "delete", image["id"])
    left = differences(before, cloud.inventory())
    assert left == [], left


@pytest.fixture
def cloud(site_cloud: Cloud) -> Iterator[Cloud]:
    """The site; VMs that a test made are deleted after it, whatever became of them."""
    kept = site_cloud.vms()
    yield site_cloud
    site_cloud.delete(site_cloud.vms() - kept)


@pytest.fixture(scope="session")
def specimen(site_cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A VM `specimen` with everything that a VM can have, for the tests that look at it."""
    folder = tmp_path_factory.mktemp("specimen")
    (folder / "injected").write_text(INJECTED)
    (folder / "user-data").write_text(USER_DATA)
    site_cloud.fifty(
        *("vm", "create", "specimen", "--image", "micro", "--flavor", "limited"),
        *("--network", "lab", "--network", "side", "--fixed-ip", "10.77.1.77"),
        *("--volume", "1", "--inject", f"{folder / 'injected'}:/etc/injected"),
        *("--user-data", str(folder / "user-data")),
    )
    yield site_cloud
    site_cloud.fifty("vm", "delete", "specimen")

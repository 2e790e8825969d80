"""debian-12, end to end: the real cloud-init, unmodified, in a guest that grows to its disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cloud import Cloud

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

USER_DATA = """#cloud-config
write_files:
  - path: /etc/written-by-cloud-init
    content: "hello from user data\\n"
    permissions: "0640"
runcmd:
  - [sh, -c, "hostname > /run/runcmd-ran"]
"""
GIB = 1024**3


@pytest.fixture(scope="module")
def debian(site_cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A VM `deb` from the image debian-12, with a volume and user data."""
    user_data: Path = tmp_path_factory.mktemp("debian") / "user-data"
    user_data.write_text(USER_DATA)
    site_cloud.fifty("image", "build", "debian-12")
    site_cloud.fifty(
        *("vm", "create", "deb", "--image", "debian-12", "--flavor", "small"),
        *("--network", "lab", "--volume", "1", "--user-data", str(user_data)),
    )
    yield site_cloud
    site_cloud.fifty("vm", "delete", "deb")


def test_cloud_init_did_all_of_it(debian: Cloud) -> None:
    assert debian.ssh("deb", "cloud-init status").strip() == "status: done"
    assert "ConfigDrive" in debian.ssh("deb", "cat /run/cloud-init/result.json")


def test_the_guest_has_its_name_and_key(debian: Cloud) -> None:
    assert debian.ssh("deb", "hostname").strip() == "deb"
    public = (debian.home / "keys" / "default.pub").read_text().split()[1]
    assert public in debian.ssh("deb", "cat ~/.ssh/authorized_keys")


def test_user_data_wrote_a_file_and_ran_a_command(debian: Cloud) -> None:
    assert debian.ssh("deb", "sudo cat /etc/written-by-cloud-init") == "hello from user data\n"
    assert debian.ssh("deb", "cat /run/runcmd-ran").strip() == "deb"


def test_the_root_file_system_has_grown_to_the_flavors_disk(debian: Cloud) -> None:
    size = int(debian.ssh("deb", "df -B1 --output=size /").splitlines()[-1])
    assert 4.5 * GIB < size <= 5 * GIB


def test_the_volume_is_there(debian: Cloud) -> None:
    assert debian.ssh("deb", "lsblk -bdno SIZE /dev/vdb").strip() == str(GIB)


def test_nothing_in_the_guest_has_failed(debian: Cloud) -> None:
    assert debian.ssh("deb", "systemctl --failed --no-legend --plain") == ""
    assert len(debian.ssh("deb", "cat /etc/machine-id").strip()) == 32


def test_the_guest_took_what_dhcp_told(debian: Cloud) -> None:
    assert debian.ssh("deb", "ip -j link | grep -o 'mtu\":[0-9]*' | tail -n 1") == 'mtu":1450\n'
    assert "default via 10.77.1.1" in debian.ssh("deb", "ip route")

"""The debian-12 image: mmdebstrap, then a boot with the real cloud-init. Takes minutes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from blocks.images import ImageStore
from blocks.images.exports import mount_points
from tests.host.image_guest import Guest, config_drive

pytestmark = [pytest.mark.host, pytest.mark.e2e]

INSTANCE = "11111111-2222-4333-8444-555555555557"
USER_DATA = """#cloud-config
write_files:
  - {path: /etc/written, content: "by cloud-init", permissions: "0640"}
runcmd:
  - [sh, -c, "hostname >/root/ran"]
"""


def test_debian_12_boots_and_cloud_init_does_its_work(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "images")
    image = store.build("debian-12", "debian", lambda _text: None)
    assert store.inventory() == []
    assert [point for point in mount_points() if str(tmp_path) in point] == []
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    drive = config_drive(INSTANCE, key.with_suffix(".pub").read_text().strip(), user_data=USER_DATA)
    with Guest(store, image, tmp_path, drive, ram_mib=512, cpus=2, disk_gib=5) as guest:
        guest.wait_until_ready()
        assert guest.ssh("hostname; sudo cat /root/ran /etc/written", key) == (
            "hello\nhello\nby cloud-init"
        )
        assert "status: done" in guest.ssh("cloud-init status --wait", key)
        assert "ConfigDrive" in guest.ssh("cat /run/cloud-init/result.json", key)
        assert 4800 < int(guest.ssh("df -m --output=size / | tail -1", key)) <= 5120
        assert guest.ssh("cat /sys/class/block/vdc/size", key) == "131072\n"
        assert guest.ssh("systemctl --failed --no-legend --plain", key) == ""
        assert len(guest.ssh("cat /etc/machine-id", key).strip()) == 32
        assert "1442" in guest.ssh("cat /sys/class/net/eth0/mtu", key)
        assert "10.0.2.3" in guest.ssh("resolvectl dns", key)
        guest.press_power_button()

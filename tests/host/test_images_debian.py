"""The debian-12 image: mmdebstrap, then a boot with the real cloud-init. Takes minutes."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
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


BUILD = """
import sys
from pathlib import Path
from blocks.images import ImageStore
ImageStore(Path(sys.argv[1])).build("debian-12", "debian", lambda text: print(text, flush=True))
"""


def processes_in(directory: Path) -> list[str]:
    """Processes that name the directory, or work in it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().decode(errors="replace")
            root = (process / "root").readlink()
            if str(directory) in words or directory in root.parents:
                found.append(words)
    return found


def test_killed_in_mid_build(tmp_path: Path) -> None:
    """Nothing goes on working, nothing stays mounted; what is left can be removed."""
    store = ImageStore(tmp_path / "images")
    words = [sys.executable, "-c", BUILD, str(tmp_path / "images")]
    builder = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    try:
        while not (tmp_path / "images" / "build" / "debian" / "tree" / "usr").exists():
            assert builder.poll() is None
            time.sleep(0.05)
        assert len(processes_in(tmp_path / "images")) > 1
    finally:
        builder.kill()
        builder.wait()
    deadline = time.monotonic() + 60
    while processes_in(tmp_path / "images"):
        assert time.monotonic() < deadline, processes_in(tmp_path / "images")
        time.sleep(0.05)
    assert [point for point in mount_points() if str(tmp_path) in point] == []
    assert [found.owner for found in store.inventory()] == ["debian"]
    store.remove_image("debian")
    assert store.inventory() == []


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

"""A guest of an image under plain QEMU: no libvirt; SSH from this host, or a tap of the test's."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from blocks.images import BuiltImage, ImageStore
from blocks.resources.image import ImageFormat

MAC = "52:54:00:12:34:56"
GIB = 1024**3
_TIMEOUT_S = 1800.0


def config_drive(
    instance_id: str,
    key: str,
    *,
    network: Mapping[str, object] | None = None,
    user_data: str = "",
    mac: str = MAC,
) -> dict[str, bytes]:
    """The files of a config drive as OpenStack writes them."""
    meta = {
        "uuid": instance_id,
        "name": "hello",
        "hostname": "hello",
        "launch_index": 0,
        "public_keys": {"k": key},
        "keys": [{"name": "k", "type": "ssh", "data": key}],
    }
    net = {
        "links": [{"id": "tap1", "type": "bridge", "ethernet_mac_address": mac, "mtu": 1442}],
        "networks": [
            network or {"id": "network0", "type": "ipv4_dhcp", "link": "tap1", "network_id": "n"}
        ],
        "services": [{"type": "dns", "address": "10.0.2.3"}],
    }
    files = {
        "openstack/latest/meta_data.json": json.dumps(meta).encode(),
        "openstack/latest/network_data.json": json.dumps(net).encode(),
    }
    if user_data:
        files["openstack/latest/user_data"] = user_data.encode()
    return files


class Guest:
    """A running guest; leaving the `with` block ends its QEMU.

    Args:
        directory: Where the disk is made at the first start, and found again at the next.
        drive: The config drive's files.
        tap: The tap of this namespace that its only NIC is at, and the NIC's MAC address;
            without one it has a network to which only `ssh` leads.
    """

    def __init__(
        self,
        store: ImageStore,
        image: BuiltImage,
        directory: Path,
        drive: Mapping[str, bytes],
        *,
        ram_mib: int = 256,
        cpus: int = 1,
        disk_gib: int = 2,
        tap: tuple[str, str] | None = None,
    ) -> None:
        self._image = image
        self._directory = directory
        self.console_file = directory / "console.log"
        self.console_file.write_bytes(b"")
        disk, iso, volume = directory / "disk", directory / "config.iso", directory / "volume"
        store.create_disk(image.path, ImageFormat.QCOW2, disk)
        store.resize_disk(disk, disk_gib * GIB)
        store.build_config_drive(iso, drive)
        with volume.open("ab") as file:
            file.truncate(64 * 1024**2)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        words = ["qemu-system-x86_64", "-machine", "q35", "-accel", "tcg", "-cpu", "qemu64"]
        words += ["-m", str(ram_mib), "-smp", str(cpus), "-display", "none", "-no-reboot"]
        words += ["-serial", f"file:{self.console_file}"]
        words += ["-monitor", f"unix:{directory / 'monitor'},server=on,wait=off"]
        words += ["-drive", f"if=virtio,file={disk},format=qcow2"]
        words += ["-drive", f"if=virtio,file={iso},format=raw,readonly=on"]
        words += ["-drive", f"if=virtio,file={volume},format=raw"]
        words += ["-device", "virtio-rng-pci"]
        if tap is None:
            forward = f"hostfwd=tcp:127.0.0.1:{self._port}-:22"
            words += ["-nic", f"user,model=virtio-net-pci,mac={MAC},restrict=on,{forward}"]
        else:
            scripts = "script=no,downscript=no"
            words += ["-nic", f"tap,ifname={tap[0]},model=virtio-net-pci,mac={tap[1]},{scripts}"]
        self.process = subprocess.Popen(words)

    def __enter__(self) -> Guest:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()

    def console(self) -> str:
        return self.console_file.read_text(errors="replace")

    def wait_until_ready(self) -> None:
        """Wait for the image's own marker on the console."""
        marker = re.compile(self._image.ready_marker)
        deadline = time.monotonic() + _TIMEOUT_S
        while not marker.search(self.console()):
            assert self.process.poll() is None, self.console()
            assert time.monotonic() < deadline, self.console()
            time.sleep(0.05)

    def ssh(self, command: str, key: Path) -> str:
        """What a command says in the guest, over SSH with the key."""
        words = ["ssh", "-i", str(key), "-p", str(self._port), "-o", "StrictHostKeyChecking=no"]
        words += ["-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes", "-F", "none"]
        words += ["-o", "LogLevel=ERROR", "-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=30"]
        words += [f"{self._image.login_user}@127.0.0.1", command]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, (done.stdout, done.stderr, self.console())
        return done.stdout

    def host_keys(self) -> str:
        words = ["ssh-keyscan", "-T", "30", "-t", "ed25519", "-p", str(self._port), "127.0.0.1"]
        said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        assert "ssh-ed25519" in said
        return said.split(maxsplit=1)[1]

    def press_power_button(self) -> None:
        """Press it, and wait until the guest has switched itself off."""
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.connect(str(self._directory / "monitor"))
            monitor.sendall(b"system_powerdown\n")
            assert self.process.wait(_TIMEOUT_S) == 0

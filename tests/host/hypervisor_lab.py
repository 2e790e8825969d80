"""An instance of which only the domain is missing: files, volume, port and tap are made."""

from __future__ import annotations

import subprocess
import uuid
from datetime import UTC, datetime
from pathlib import Path

from blocks.commands import run
from blocks.hypervisor import InstanceDirectories, LibvirtHost
from blocks.marks import tap_name
from blocks.resources import (
    Flavor,
    FlavorLimits,
    Instance,
    InstanceStatus,
    Network,
    NetworkType,
    Port,
    PortBinding,
    PortKind,
    Volume,
)
from blocks.volumes import VolumePool

LIMITS = FlavorLimits(cpu_shares=512, cpu_percent=50, disk_iops=100, disk_mib_s=5, net_kib_s=1000)


def boot_sector(says: str) -> bytes:
    """A disk's first sector that writes a text by the firmware, and stops there.

    xor ax,ax; mov ds,ax; cld; mov si,text; next: lodsb; test al,al; jz end;
    mov ah,0x0e; int 0x10; jmp next; end: hlt; jmp end
    """
    code = bytes.fromhex("31c08ed8fcbe167cac84c07406b40ecd10ebf5f4ebfd")
    return (code + b"\r\n" + says.encode() + b"\0").ljust(510, b"\0") + b"\x55\xaa"


class Lab:
    """An instance with a port and a volume, its files made, its domain not."""

    def __init__(self, home: Path, uri: str, site: str) -> None:
        self.uri = uri
        self.site = site
        self.host = LibvirtHost(uri, "tcg", site)
        self.directories = InstanceDirectories(home / "instances", site)
        self.pool = VolumePool(home / "volumes", site)
        now = datetime.now(UTC)
        self.instance = Instance(
            id=str(uuid.uuid4()),
            tenant_id="t1",
            name="web-1",
            status=InstanceStatus.BUILD,
            flavor=Flavor(name="tiny", vcpus=1, ram_mib=128, disk_gib=1, limits=LIMITS),
            image_id="i1",
            image_name="none",
            request_id="r1",
            created_at=now,
            updated_at=now,
        )
        self.id = self.instance.id
        self.name = f"fifty-{self.id[:8]}-web-1"
        port_id = str(uuid.uuid4())
        self.tap = tap_name(port_id)
        self.binding = PortBinding(
            port=Port(
                id=port_id,
                tenant_id="t1",
                network_id="n1",
                kind=PortKind.COMPUTE,
                mac="fa:16:3e:00:00:01",
                tap=self.tap,
                mark=1,
            ),
            network=Network(
                id="n1",
                tenant_id="t1",
                name="net",
                type=NetworkType.LOCAL,
                mtu=1450,
                zone=1,
                anchor_host="h",
            ),
            subnets=(),
        )
        volume = Volume(
            id=str(uuid.uuid4()),
            tenant_id="t1",
            instance_id=self.id,
            size_gib=1,
            index=0,
            device="vdb",
        )
        self.volume = volume.model_copy(update={"path": str(self.pool.path_of(volume))})
        self.base = home / f"base-{self.id}.qcow2"

    def make_files(self, first_sector: bytes = b"") -> Path:
        """Make all that the domain needs, and give back the instance's directory."""
        directory = self.directories.prepare(self.id)
        raw = directory / "base.raw"
        raw.write_bytes(first_sector.ljust(1 << 20, b"\0"))
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, self.base)
        self.base.chmod(0o644)
        overlay = directory / "disk.qcow2"
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", self.base, "-F", "qcow2", overlay)
        (directory / "config.iso").write_bytes(bytes(65536))
        uid, gid = self.host.qemu_identity()
        run("chown", f"{uid}:{gid}", overlay, directory / "config.iso")
        self.pool.create(self.volume)
        self.pool.connect(self.volume)
        run("ip", "tuntap", "add", "mode", "tap", "name", self.tap, "user", str(uid))
        run("ip", "link", "set", self.tap, "mtu", "1450", "up")
        return directory

    def start(self, first_sector: bytes) -> Path:
        """Let a guest run that has only a boot sector; give back its console's log."""
        directory = self.make_files(first_sector)
        self.host.define(self.xml())
        self.host.start_paused(self.id)
        self.host.resume(self.id)
        return directory / "console.log"

    def xml(self) -> str:
        spec = self.host.guest_spec(
            self.instance, [self.binding], [self.volume], self.directories.path(self.id)
        )
        return self.host.compose(spec)

    def virsh(self, *words: str) -> str:
        return run("virsh", "-c", self.uri, *words).stdout

    def clean(self) -> None:
        self.host.undefine(self.id)
        subprocess.run(["ip", "link", "delete", self.tap], check=False, capture_output=True)
        self.pool.disconnect(self.volume)
        self.pool.delete(self.volume)
        self.directories.remove(self.id)
        self.base.unlink(missing_ok=True)

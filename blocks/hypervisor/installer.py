"""A guest that installs an operating system onto its empty disk, unattended, and then ends."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Literal

import libvirt
from pydantic import Field

from blocks.errors import Unsupported
from blocks.hypervisor.capabilities import MACHINE, Capabilities
from blocks.hypervisor.console import failures, guest_fault, tail
from blocks.hypervisor.domains import Domains
from blocks.hypervisor.guest import DiskSpec, GuestSpec
from blocks.hypervisor.instance_dirs import CONSOLE_LOG, DISK
from blocks.hypervisor.specify import adapt, choose_cpu
from blocks.hypervisor.wishes import Wishes, of_installed
from blocks.marks import domain_name
from blocks.resources import ImageFormat
from blocks.resources.base import HostName, Resource

_POLL_S = 0.5
#: The drive of the first medium (see `domain_xml`), and more than a firmware and boot loader
#: read of it before somebody has pressed the key.
_FIRST_MEDIUM, _LOADING = "sdz", 16 * 1024**2
#: Linux's number of the Enter key (KEY_ENTER), and how long it is held.
_ENTER, _HELD_MS = 28, 50
#: The word of our own script in Windows (`prepare.ps1`), and a kernel's that is lost.
_FAILED = re.compile(rb"FIFTY-WINDOWS failed: |Kernel panic - not syncing")


class Installer(Resource):
    """A machine for an installer.

    Attributes:
        build_id: The image's build: the domain is found by it.
        name: The image's.
        directory: Has the empty disk; the console's log comes here.
        media: The installer's medium, then those with answers and drivers.
        system: Whose installer it is. Windows' reboots many times and ends by shutting down;
            others are through when they reboot, or shut down.
        virtio: Whether it knows virtio's disks, by itself or by a medium with drivers.
    """

    build_id: str
    tenant_id: str
    name: HostName
    directory: Path
    media: tuple[Path, ...] = Field(min_length=1, max_length=4)
    vcpus: int = Field(default=2, ge=1, le=64)
    ram_mib: int = Field(default=2048, ge=64)
    system: Literal["linux", "windows"] = "linux"
    firmware: Literal["bios", "uefi"] = "bios"
    virtio: bool = True
    created_at: datetime

    @property
    def wishes(self) -> Wishes:
        """What its machine has to be."""
        return of_installed(self.system, self.firmware, virtio=self.virtio)


def specify_installer(known: Capabilities, site: str, wanted: Installer) -> GuestSpec:
    """The specification of an installer's guest; it has no interface.

    Raises:
        Unsupported: This host lacks something; the message names it.
    """
    cpu = choose_cpu(known, None)
    if cpu is None or MACHINE not in known.machines or "sata" not in known.disk_buses:
        raise Unsupported(
            f"this host's QEMU {known.qemu} has no {MACHINE} machine with SATA drives"
        )
    disk = DiskSpec(
        path=wanted.directory / DISK, format=ImageFormat.QCOW2, target="vda", alias="ua-root"
    )
    spec = GuestSpec(
        instance_id=wanted.build_id,
        tenant_id=wanted.tenant_id,
        site=site,
        name=wanted.name,
        domain=domain_name(wanted.build_id, wanted.name),
        generation=1,
        created_at=wanted.created_at,
        accelerator=known.accelerator,
        emulator=known.emulator,
        machine=MACHINE,
        cpu=cpu,
        vcpus=wanted.vcpus,
        ram_mib=wanted.ram_mib,
        disks=(disk,),
        console_log=wanted.directory / CONSOLE_LOG,
        rng="builtin" if "builtin" in known.rng_backends else "urandom",
        ends_at_reboot=wanted.system != "windows",
    )
    return adapt(spec, known, wanted.wishes, wanted.media)


class Keyboard(Domains):
    """The keyboards of a site's guests, for installers that ask somebody who is not there."""

    def press_any_key(self, build_id: str, timeout_s: float = 180.0) -> bool:
        """Press Enter until an installer is loaded from its medium.

        Media for UEFI ask to "press any key to boot from CD or DVD", and go on without it.

        Returns:
            Whether it is being loaded; if not, it may not have asked, or cannot boot.
        """
        deadline = time.monotonic() + timeout_s
        while self._bytes_read(build_id) < _LOADING:
            if time.monotonic() > deadline or self.state(build_id) != "running":
                return False
            self._change(build_id, "press a key of", _press_enter, "", ["send-key"])
            time.sleep(_POLL_S)
        return True

    def _bytes_read(self, build_id: str) -> int:
        """The bytes that a guest has read of its first medium; 0 where it does not run."""
        read = 0

        def look(domain: libvirt.virDomain) -> bool:
            nonlocal read
            read = int(domain.blockStats(_FIRST_MEDIUM)[1]) if domain.isActive() else 0
            return False

        self._change(build_id, "read the statistics of", look, "", ["domblkstat"])
        return read


def _press_enter(domain: libvirt.virDomain) -> bool:
    """Press the key; nothing of the host has changed by it."""
    if domain.isActive():
        domain.sendKey(libvirt.VIR_KEYCODE_SET_LINUX, _HELD_MS, [_ENTER], 1, 0)
    return False


def wait_until_through(
    domains: Domains, build_id: str, log: Path, timeout_s: float, progress: Callable[[str], None]
) -> None:
    """Wait until an installer has shut its machine down, or rebooted it.

    Args:
        domains: The domains; the installer's has been started.
        build_id: The image's build.
        log: The console's log.
        timeout_s: Seconds from now.
        progress: Told the console's last line, when it is another one.

    Raises:
        GuestFault: It says that it failed, its machine broke down or was stopped (half a system
            may boot, too), or it was not through in time; the details are its last 20 lines.
    """
    deadline = time.monotonic() + timeout_s
    told: list[str] = []
    with failures(log, (_FAILED,)) as look:
        while True:
            state = domains.state(build_id)
            look()
            last = tail(log, 1)
            if last and last != told:
                told = last
                progress(last[0])
            if state == "shutoff":
                if _was_destroyed(domains, build_id):
                    raise guest_fault("the installer's machine was stopped by somebody else", log)
                return
            if state not in ("running", "paused", "shutdown"):
                raise guest_fault(f"the installer's machine is {state or 'gone'}", log)
            if time.monotonic() > deadline:
                raise guest_fault(f"the installer was not through within {timeout_s:g} s", log)
            time.sleep(_POLL_S)


def _was_destroyed(domains: Domains, build_id: str) -> bool:
    """Whether a guest that is off was stopped from outside: it has not ended by itself."""

    def look(conn: libvirt.virConnect) -> bool:
        state = conn.lookupByUUIDString(build_id).state()
        return bool(state == [libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED])

    return domains.connection.call(f"look why {build_id} is off", look)

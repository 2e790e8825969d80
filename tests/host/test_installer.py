"""A real unattended installation, from an ISO of the test's own, by an installer of 50 bytes.

Its boot sector writes the boot sector of "the system" onto the empty disk, and then shuts the
machine down, or reboots it, or does neither. All else is real: firmware, drives, libvirt.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pycdlib
import pytest

from blocks.commands import run
from blocks.errors import GuestFault
from blocks.hypervisor import guest_processes
from blocks.hypervisor.installer import (
    Installer,
    Keyboard,
    specify_installer,
    wait_until_through,
)
from tests.host.hypervisor_lab import Lab, boot_sector
from tests.waiting import eventually

pytestmark = pytest.mark.host

BEGINS = "The installer begins"
INSTALLED = "The installed system"
#: mov dx,0x604; mov ax,0x2000; out dx,ax: ACPI's power switch; mov dx,0xcf9; mov al,6; out
#: dx,al: the reset of the machine; then hlt, for ever.
POWER_OFF, REBOOT, NOTHING = bytes.fromhex("ba0406b80020ef"), bytes.fromhex("baf90cb006ee"), b""


def installer(
    path: Path, end: bytes, says: str = BEGINS, system: bytes = boot_sector(INSTALLED)
) -> Path:
    """A medium that a BIOS boots (El Torito, no emulation); `system` is what it installs.

    xor ax,ax; mov ds,ax; mov es,ax; cld; mov si,text; next: lodsb; test al,al; jz on;
    mov ah,0x0e; int 0x10; jmp next; on: mov ax,0x0301; mov bx,0x7e00; mov cx,1; mov dx,0x80;
    int 0x13 (write the sector behind this one to the first disk); END; halt: hlt; jmp halt
    """
    parts = "31c08ed88ec0fcbe{text}ac84c07406b40ecd10ebf5b80103bb007eb90100ba8000cd13"
    length = len(bytes.fromhex(parts.format(text="0000"))) + len(end) + 3
    text = (0x7C00 + length).to_bytes(2, "little").hex()
    code = bytes.fromhex(parts.format(text=text)) + end + bytes.fromhex("f4ebfd")
    # What is said last may still be in the serial port when the machine goes off.
    code += b"\r\n" + says.encode() + b"\r\n" + b"." * 64 + b"\r\n\0"
    content = code.ljust(512, b"\0") + system
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3)
    content = content.ljust(2048, b"\0")
    iso.add_fp(BytesIO(content), len(content), "/BOOT.;1")
    iso.add_eltorito("/BOOT.;1")
    iso.write(str(path))
    iso.close()
    return path


#: xor ax,ax; int 0x16: wait for a key.
KEY = bytes.fromhex("31c0cd16")


@pytest.fixture(name="lab")
def _lab(session_directory: Path, libvirtd: str, site: str) -> Iterator[Lab]:
    lab = Lab(session_directory / "hypervisor", libvirtd, site)
    try:
        yield lab
    finally:
        lab.clean()


def started(lab: Lab, end: bytes, says: str = BEGINS) -> Path:
    """Start the installer on the lab's empty disk; give back its console's log."""
    directory = lab.make_files()
    medium = installer(directory / "installer.iso", end, says)
    uid, gid = lab.host.qemu_identity()
    run("chown", f"{uid}:{gid}", medium)
    wanted = Installer(
        build_id=lab.id,
        tenant_id="t1",
        name="web-1",
        directory=directory,
        media=(medium,),
        vcpus=1,
        ram_mib=128,
        created_at=datetime.now(UTC),
    )
    xml = lab.host.compose(specify_installer(lab.host.capabilities(), lab.site, wanted))
    lab.host.validate(xml)
    lab.host.define(xml)
    lab.host.start_paused(lab.id)
    lab.host.resume(lab.id)
    return directory / "console.log"


@pytest.mark.slow
@pytest.mark.parametrize("end", [POWER_OFF, REBOOT], ids=["shuts down", "reboots"])
def test_what_it_installed_boots(lab: Lab, end: bytes) -> None:
    log = started(lab, end)
    told: list[str] = []
    wait_until_through(lab.host, lab.id, log, 600.0, told.append)
    assert BEGINS in log.read_text(errors="replace")
    assert told, "its console was told of while it worked"
    lab.host.undefine(lab.id)
    # The same disk, in a guest as any other.
    lab.host.define(lab.xml())
    lab.host.start_paused(lab.id)
    lab.host.resume(lab.id)
    eventually(lambda: INSTALLED in log.read_text(errors="replace"), "word of the system")
    assert BEGINS not in log.read_text(errors="replace")


def test_one_that_asks_for_a_key_is_given_it(lab: Lab) -> None:
    """The keys come until much is read of the medium, which this one never does."""
    log = started(lab, KEY + POWER_OFF)
    keyboard = Keyboard(lab.host.connection, lab.site)
    assert not keyboard.press_any_key(lab.id), "it was through before it had read much"
    wait_until_through(lab.host, lab.id, log, 60.0, lambda _line: None)
    assert BEGINS in log.read_text(errors="replace")


def test_one_that_is_never_through_is_given_up(lab: Lab) -> None:
    log = started(lab, NOTHING)
    eventually(lambda: log.exists() and BEGINS in log.read_text(errors="replace"), "installer")
    with pytest.raises(GuestFault, match="was not through within 1 s") as raised:
        wait_until_through(lab.host, lab.id, log, 1.0, lambda _line: None)
    assert any(BEGINS in line for line in raised.value.details)


def test_one_that_says_that_it_failed_is_believed(lab: Lab) -> None:
    log = started(lab, NOTHING, "FIFTY-WINDOWS failed: no drivers")
    with pytest.raises(GuestFault, match="FIFTY-WINDOWS failed: no drivers"):
        wait_until_through(lab.host, lab.id, log, 600.0, lambda _line: None)


@pytest.mark.parametrize(
    ("how", "words"), [("destroy", "was stopped by somebody else"), ("kill", "machine is crashed")]
)
def test_one_that_somebody_stops_is_not_through(lab: Lab, how: str, words: str) -> None:
    """What it has written by then may boot, and is half a system."""
    log = started(lab, NOTHING)
    eventually(lambda: log.exists() and BEGINS in log.read_text(errors="replace"), "installer")
    if how == "destroy":
        lab.virsh("destroy", lab.id)
    else:
        [qemu] = guest_processes.inventory(log.parent.parent)
        os.kill(int(qemu.detail.removeprefix("pid ")), signal.SIGKILL)
    with pytest.raises(GuestFault, match=words) as raised:
        wait_until_through(lab.host, lab.id, log, 600.0, lambda _line: None)
    assert any(BEGINS in line for line in raised.value.details)

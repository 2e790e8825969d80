"""The serial console of real guests: boot sectors that speak, and disks that do not boot."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.errors import GuestFault
from blocks.hypervisor import milestones, tail
from tests.host.hypervisor_lab import Lab, boot_sector

pytestmark = pytest.mark.host

FAILING = (re.compile(rb"Kernel panic - not syncing.*"), re.compile(rb"No bootable device"))
READY = re.compile(rb"FIFTY-MARK ready \S+")
LIMIT_S = 60.0


@pytest.fixture(name="lab")
def _lab(session_directory: Path, libvirtd: str, site: str) -> Iterator[Lab]:
    lab = Lab(session_directory / "console", libvirtd, site)
    try:
        yield lab
    finally:
        lab.clean()


def test_a_guest_that_boots(lab: Lab) -> None:
    log = lab.start(boot_sector("Linux version 0\r\nFIFTY-MARK ready web-1\r\n"))
    event = lab.host.watch_console(lab.id, log, [READY], FAILING, LIMIT_S)
    assert str(event) == "FIFTY-MARK ready web-1"
    assert event.stage == "login"
    stages = [stage for stage, _line in milestones(log)]
    assert stages == ["firmware", "boot sector", "kernel", "login"]
    assert milestones(log)[0][1].startswith("SeaBIOS (version")
    # What was said before counts: the same wait, in a build that is resumed, ends at once.
    assert lab.host.watch_console(lab.id, log, [READY], FAILING, 0.0) == event


def test_a_log_begins_anew_with_each_start(lab: Lab) -> None:
    log = lab.start(boot_sector("FIFTY-MARK ready once\r\n"))
    lab.host.watch_console(lab.id, log, [READY], FAILING, LIMIT_S)
    lab.host.destroy(lab.id)
    lab.host.start_paused(lab.id)
    assert tail(log) == []
    lab.host.resume(lab.id)
    lab.host.watch_console(lab.id, log, [READY], FAILING, LIMIT_S)
    assert sum("once" in line for line in tail(log)) == 1


def test_a_panic_ends_the_wait_with_the_last_lines(lab: Lab) -> None:
    log = lab.start(boot_sector("line before\r\nKernel panic - not syncing: no root\r\n"))
    with pytest.raises(GuestFault, match="Kernel panic - not syncing: no root") as caught:
        lab.host.watch_console(lab.id, log, [READY], FAILING, LIMIT_S)
    assert "line before" in caught.value.details


def test_a_disk_that_does_not_boot(lab: Lab) -> None:
    log = lab.start(b"")
    with pytest.raises(GuestFault, match="No bootable device"):
        lab.host.watch_console(lab.id, log, [READY], FAILING, LIMIT_S)


def test_a_guest_that_ends_meanwhile(lab: Lab) -> None:
    log = lab.start(boot_sector("last words\r\n"))
    lab.host.watch_console(lab.id, log, [re.compile(rb"last words")], FAILING, LIMIT_S)
    killer = threading.Timer(0.2, lambda: lab.host.destroy(lab.id))
    killer.start()
    try:
        with pytest.raises(GuestFault, match="ended") as caught:
            lab.host.watch_console(lab.id, log, [READY], FAILING, LIMIT_S)
    finally:
        killer.join()
    assert "last words" in caught.value.details


def test_a_guest_that_says_nothing_of_it(lab: Lab) -> None:
    log = lab.start(boot_sector("Linux version 0\r\n"))
    lab.host.watch_console(lab.id, log, [re.compile(rb"Linux")], FAILING, LIMIT_S)
    with pytest.raises(GuestFault, match=r"came to: kernel.*within 0\.2 s"):
        lab.host.watch_console(lab.id, log, [READY], FAILING, 0.2)

"""Guests that fail: each build ends undone, and its error has the console's last words."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.cloud import Cloud
from tests.faults.building import Building
from tests.inventory import differences

pytestmark = pytest.mark.e2e

CREATE = ("vm", "create", "--image", "micro", "--network", "lab")
#: Two cores boot as many guests at once in no longer than one after the other.
AT_ONCE = 3


@dataclass(frozen=True)
class Broken:
    """A guest of the image `micro` that is broken by a file.

    Attributes:
        name: The VM.
        file: What the file holds.
        path: Where it is put in the guest; None makes it the user data.
        step: Where the build stops.
        message: What its error says.
        console: What one of the console's last lines says.
        settings: Limits for waits that nothing can end.
    """

    name: str
    file: str
    path: str | None
    step: int
    message: str
    console: str
    settings: Mapping[str, str] = field(default_factory=dict)


#: Those that take longest first.
GUESTS = (
    Broken(
        *("never-ready", "#!/bin/sh\nexec sleep 1000000\n", None, 49),
        message="to nothing of what was waited for, within 30 s",
        console="FIFTY-MARK sshd",
        settings={"FIFTY_READY_WAIT_S": "30"},
    ),
    Broken(
        *("no-address", "#!/bin/sh\nexec sleep 1000000\n", "/lib/micro/udhcpc", 48),
        message="no answer on lab within 15 s",
        console="FIFTY-MARK sshd",
        settings={"FIFTY_ADDRESS_WAIT_S": "15"},
    ),
    Broken(
        *("no-login", "#!/bin/sh\nexit 0\n", "/bin/dropbear", 49),
        message="no SSH banner within 5 s",
        console="FIFTY-MARK sshd",
        settings={"FIFTY_READY_WAIT_S": "5"},
    ),
    Broken(
        *("panics-later", "#!/bin/sh\necho c > /proc/sysrq-trigger\n", "/lib/micro/udhcpc", 48),
        message="Kernel panic - not syncing: sysrq triggered crash",
        console="Kernel panic - not syncing",
    ),
    Broken(
        *("init-exits", "#!/bin/sh\nexit 3\n", "/bin/init", 47),
        message="Kernel panic - not syncing: Attempted to kill init!",
        console="Kernel panic - not syncing",
    ),
    Broken(
        *("not-well", "#!/bin/sh\nexit 3\n", None, 49),
        message="FIFTY-MARK error user-data ended with 3",
        console="FIFTY-MARK error user-data ended with 3",
    ),
)


def fault_of(cloud: Cloud, guest: Broken, directory: Path) -> dict[str, Any]:
    """What `fifty vm create` says of a guest that cannot become well."""
    file = directory / guest.name
    file.write_text(guest.file)
    file.chmod(0o755)
    broken = ("--inject", f"{file}:{guest.path}") if guest.path else ("--user-data", str(file))
    words = (*CREATE, guest.name, *broken)
    with Building(cloud, guest.name, *words, **guest.settings) as build:
        fault: dict[str, Any] = build.end(1)
    return fault


def test_guests_that_panic_or_never_come_up(cloud: Cloud, tmp_path: Path) -> None:
    before = cloud.inventory()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        faults = list(pool.map(lambda guest: fault_of(cloud, guest, tmp_path), GUESTS))
    for guest, fault in zip(GUESTS, faults, strict=True):
        assert (guest.name, fault["error"], fault["step"]) == (guest.name, "GuestFault", guest.step)
        assert guest.message in fault["message"], fault
        assert "\n" not in fault["message"], fault
        assert any(guest.console in line for line in fault["details"]), fault
        assert "fifty vm console" in fault["hint"], fault
        shown = cloud.json("vm", "show", guest.name)
        assert (shown["status"], shown["fault"]["message"]) == ("ERROR", fault["message"])
    assert differences(before, cloud.inventory()) == []

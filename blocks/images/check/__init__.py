"""The static check: what a cloud asks of an image, looked up in its files without booting it."""

from __future__ import annotations

import time

from blocks.images.access.base import Access
from blocks.images.check.boot import BOOT
from blocks.images.check.cloud_init import CLOUD
from blocks.images.check.firmware import Firmware
from blocks.images.check.guest import Guest
from blocks.images.check.leftovers import LEFTOVERS
from blocks.images.check.network import NETWORK
from blocks.images.check.points import Point
from blocks.images.check.report import CheckReport, Finding, Verdict

#: Seconds after which no further point is looked at: an honest image takes less than one.
_LONGEST_S = 300.0
#: All points, in the order in which they are told.
POINTS: tuple[Point, ...] = (*BOOT.all, *NETWORK.all, *CLOUD.all, *LEFTOVERS.all)


def look_at(access: Access, firmware: Firmware | None = None) -> tuple[Finding, ...]:
    """Look at every point.

    Args:
        access: The image's files.
        firmware: What will start it; none: a BIOS.
    """
    guest = Guest(access, firmware or Firmware())
    deadline = time.monotonic() + _LONGEST_S
    return tuple(
        point.finding(guest) if time.monotonic() < deadline else point.passed_over()
        for point in POINTS
    )


__all__ = ["POINTS", "CheckReport", "Finding", "Verdict", "look_at"]

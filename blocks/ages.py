"""How old things on the host are: what the host itself can tell, and what only we can.

Files tell when they were last changed, processes when they were started, namespaces when
they got their name. Links, and rules of the firewall, tell nothing, and a file that is
written to stays young for ever: so it is noted when a thing was first seen astray, and "so
long at least" is what is known of its age then.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

from blocks.state.machine import boot_id, process_started


def of_file(path: Path) -> float | None:
    """Seconds since a file, or the list of what is in a directory, was last changed.

    By the time of the inode's change, which nobody can set back (utimensat(2) can set the
    others).

    Returns:
        None where it is gone.
    """
    try:
        return max(0.0, time.time() - path.lstat().st_ctime)
    except FileNotFoundError:
        return None


def of_process(pid: int) -> float | None:
    """Seconds since a process was started; None: it is gone."""
    started = process_started(pid)
    if started is None:
        return None
    return max(0.0, _since_boot() - started / os.sysconf("SC_CLK_TCK"))


class Sightings:
    """When things were first seen.

    Kept in a file, with the boot that it counts from: a thing that was not seen at the last
    look is forgotten, so that one of the same name that comes later is new. A file that is
    torn, or of another boot, says nothing: then everything is new, which is the safe side.

    Args:
        file: Where.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def look(self, names: Iterable[str]) -> dict[str, float]:
        """Note that these are there now, and no others; the seconds since each was first seen."""
        now = _since_boot()
        known = self._known()
        seen = {name: min(known.get(name, now), now) for name in names}
        if seen != known:
            part = self._file.with_name(f".{self._file.name}.{os.getpid()}")
            part.write_text(json.dumps({"boot": boot_id(), "seen": seen}))
            part.replace(self._file)
        return {name: now - first for name, first in seen.items()}

    def _known(self) -> dict[str, float]:
        try:
            document = json.loads(self._file.read_text())
            if document["boot"] == boot_id():
                return {str(name): float(first) for name, first in document["seen"].items()}
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError, AttributeError):
            # Of another form, or torn: it is written anew.
            pass
        return {}


def _since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)

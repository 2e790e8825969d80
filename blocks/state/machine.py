"""What tells this boot, and this process, from every other one."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=1)
def boot_id() -> str:
    """The kernel's id of this boot (random(4)); changes with every reboot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def process_started(pid: int) -> int | None:
    """When a process started, in clock ticks after boot (proc(5), field 22).

    Returns:
        None where there is no such process, or only its zombie.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The program's name, in brackets, may itself hold blanks and brackets.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])

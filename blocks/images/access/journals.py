"""File systems as a crash leaves them, brought to rest: e2fsck(8), in a confined process.

The disk of a guest that ran when it was copied is as after a power cut: what its journal holds
is still to be done. Whoever writes before that would have it undone at the next mount.
"""

from __future__ import annotations

from pathlib import Path

from blocks import changes
from blocks.commands import Confinement, Limits, run
from blocks.errors import GuestFault
from blocks.images.file_systems import EXT
from blocks.images.partitions import read_map

_LIMITS = Limits(memory_bytes=1024**3, cpu_s=600)
_TIMEOUT_S = 1800
#: e2fsck's: all was well, or is now.
_WELL = (0, 1)


def replay_journals(raw: Path, scratch: Path) -> int:
    """Do what the journals of a disk's ext file systems still hold; twice is once.

    Args:
        raw: The disk as a raw file, to be written.
        scratch: A directory for the process to be in.

    Returns:
        How many file systems that changed.

    Raises:
        GuestFault: One cannot be brought to rest without asking somebody.
    """
    unclean = [one for one in read_map(raw).file_systems if one.kind in EXT and not one.clean]
    for held in unclean:
        words = ["e2fsck", "-p", f"{raw.absolute()}?offset={held.offset}"]
        done = run(
            *words,
            cwd=scratch,
            limits=Confinement(_LIMITS, (), (raw.absolute(),)),
            ok_codes=range(256),
            timeout_s=_TIMEOUT_S,
        )
        if done.returncode not in _WELL:
            raise GuestFault(
                f"the {held.kind} file system at {held.offset} is not consistent",
                hint="run e2fsck in the guest, or shut it down in order and take it then",
                details=done.stdout.splitlines()[:20],
            )
        changes.record(f"Replayed the journal of the {held.kind} file system", words)
    return len(unclean)

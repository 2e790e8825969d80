"""File systems as a crash leaves them, brought to rest: e2fsck(8), in a confined process.

The disk of a guest that ran when it was copied is as after a power cut: what its journal holds
is still to be done. Whoever writes before that would have it undone at the next mount.
"""

from __future__ import annotations

from pathlib import Path

from blocks import changes
from blocks.commands import Confinement, Limits, run
from blocks.errors import GuestFault
from blocks.images.exports import Exports
from blocks.images.file_systems import EXT
from blocks.images.partitions import read_map
from blocks.resources.image import ImageFormat

_LIMITS = Limits(memory_bytes=1024**3, cpu_s=600)
_TIMEOUT_S = 1800
#: e2fsck's: all was well, or is now.
_WELL = (0, 1)


def replay_journals(disk: Path, form: ImageFormat, exports: Exports) -> int:
    """Do what the journals of a disk's ext file systems still hold; twice is once.

    Args:
        disk: The disk, to be written; no QEMU may be using it.
        form: Its format.
        exports: How it is seen as a raw file.

    Returns:
        How many file systems that changed.

    Raises:
        GuestFault: One cannot be brought to rest without asking somebody.
    """
    with exports.open(disk, form, writable=False) as raw:
        unclean = [one for one in read_map(raw).file_systems if one.kind in EXT and not one.clean]
    for held in unclean:
        # Not by `?offset=`: e2fsck forgets it when it reads the superblock again.
        with exports.open(disk, form, window=(held.offset, held.size)) as raw:
            replay_journal(raw)
    return len(unclean)


def replay_journal(raw: Path) -> None:
    """Do what the journal of an ext file system still holds.

    Args:
        raw: A file with this file system alone; its directory is scratch space.

    Raises:
        GuestFault: It cannot be brought to rest without asking somebody.
    """
    words = ["e2fsck", "-f", "-p", str(raw.absolute())]
    done = run(
        *words,
        cwd=raw.parent,
        limits=Confinement(_LIMITS, (), (raw.absolute(),)),
        ok_codes=range(256),
        timeout_s=_TIMEOUT_S,
    )
    if done.returncode not in _WELL:
        raise GuestFault(
            "a file system is not consistent, and nobody can mend it without being asked",
            hint="run e2fsck in the guest, or shut it down in order and take it then",
            details=(done.stdout + done.stderr).splitlines()[:20],
        )
    changes.record("Replayed the journal of a file system", words)

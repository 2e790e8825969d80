"""Who has a file open: found in /proc, as QEMU's locks do not name their holder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Holder:
    """A process that has a file open.

    Attributes:
        pid: The process.
        words: Its command line.
    """

    pid: int
    words: tuple[str, ...]

    def is_guest(self, instance_id: str | None) -> bool:
        """Whether it is the QEMU of that instance (libvirt passes `-uuid ID`)."""
        return instance_id is not None and ("-uuid", instance_id) in zip(
            self.words, self.words[1:], strict=False
        )


def holders_of(path: Path) -> list[Holder]:
    """The processes that have a file open; those that end meanwhile are left out."""
    try:
        wanted = path.stat()
    except FileNotFoundError:
        return []
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            if not any(_is(link, wanted.st_dev, wanted.st_ino) for link in _descriptors(process)):
                continue
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        found.append(Holder(int(process.name), tuple(words)))
    return found


def _descriptors(process: Path) -> list[Path]:
    return list((process / "fd").iterdir())


def _is(link: Path, device: int, inode: int) -> bool:
    try:
        target = link.stat()
    except OSError:
        # Closed meanwhile, or a kind of descriptor that has no file.
        return False
    return (target.st_dev, target.st_ino) == (device, inode)

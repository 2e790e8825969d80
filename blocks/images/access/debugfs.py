"""debugfs(8): an ext file system read and written in user space.

It runs confined: under limits, without network, with no file in reach but the disk and the two
that pass between us; what it says is read up to a limit. Whatever a file system claims, nothing
of it is taken for a path of this host. One process answers all that is asked of one file system.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from blocks.commands import Confinement, Limits, run
from blocks.errors import HostFault, InvalidRequest
from blocks.images.access.base import Node
from blocks.images.access.dialogue import Dialogue
from blocks.images.file_systems import FileSystem

ROOT_INODE = 2
_LIMITS = Limits(memory_bytes=1024**3, cpu_s=60)
_LONGEST_LINK = 4096
#: More than the largest file that is read, and than any complaints.
_MOST_TOLD = 1024**3
#: What debugfs says where all is well.
_NOISE = ("debugfs 1", "rm: File not found")
_LIST_LINE = re.compile(rb"/(\d+)/(\d{6})/(\d+)/(\d+)/([^/]+)/(\d*)/")
_FAST_LINK = re.compile(rb'^Fast link dest: "(.*)"$', re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Inode:
    """A numbered thing of one file system.

    Attributes:
        volume: The file system.
        number: Its inode's number.
        node: What it is.
    """

    volume: Volume
    number: int
    node: Node


class Volume:
    """One ext file system of a raw disk; `close` ends the process that reads it.

    Args:
        raw: The disk, or a view of it.
        held: The file system.
        scratch: A directory for the files that pass between debugfs and us.
        writable: Whether it will be changed: then the first process is one that can.
    """

    def __init__(
        self, raw: Path, held: FileSystem, scratch: Path, *, writable: bool = False
    ) -> None:
        self._raw = raw.absolute()
        self._image = f"{self._raw}?offset={held.offset}"
        self._listed: dict[int, dict[str, Inode]] = {}
        self._dialogue: Dialogue | None = None
        # Not one that nothing will be written to: to open it so may be a change already.
        self._will_change = writable and held.clean
        self._writable = False
        self.scratch = scratch
        self.held = held

    def close(self) -> None:
        """End the process, where one runs; the next question starts another."""
        self._listed.clear()
        if self._dialogue is not None:
            self._dialogue.close()
            self._dialogue = None

    def root(self) -> Inode:
        """The root directory.

        Raises:
            HostFault: debugfs cannot open the file system.
        """
        return self.entries(ROOT_INODE)["."]

    def entries(self, number: int) -> dict[str, Inode]:
        """What a directory holds, `.` and `..` among it; a name no path can have is left out."""
        if number not in self._listed:
            found = {}
            for line in _LIST_LINE.finditer(self._ask(f"ls -p <{number}>")):
                inode, mode, uid, gid = int(line[1]), int(line[2], 8), int(line[3]), int(line[4])
                node = Node(mode, uid, gid, int(line[6] or 0))
                found[line[5].decode("utf-8", "surrogateescape")] = Inode(self, inode, node)
            if "." not in found:
                raise HostFault(
                    f"the directory with inode {number} cannot be read",
                    hint="check the image with e2fsck",
                )
            self._listed[number] = found
        return self._listed[number]

    def link(self, inode: Inode) -> str:
        """What a symbolic link says; nothing where it is longer than any path can be."""
        if inode.node.size > _LONGEST_LINK:
            return ""  # debugfs would write it out, to the length that it claims to have
        fast = _FAST_LINK.search(self._ask(f"stat <{inode.number}>"))
        said = fast[1] if fast else self.content(inode.number, _LONGEST_LINK)
        return said[: inode.node.size].decode("utf-8", "surrogateescape")

    def content(self, number: int, limit: int) -> bytes:
        """A file's content, as far as the limit."""
        out = self.scratch / "out"
        # Nothing of the last one where debugfs refuses this one.
        out.write_bytes(b"")
        self._ask(f"dump <{number}> out")
        with out.open("rb") as file:
            return file.read(limit)

    def change(self, lines: list[str]) -> list[str]:
        """Run commands that change something; what debugfs complained of until now.

        All is written, and seen by others, when the volume is closed.
        """
        if self._dialogue is None or not self._writable:
            self.close()
            self._dialogue = self._start(writable=True)
        # What reads it back sees what is in the disk, not what the writer remembers.
        self._will_change = False
        self._listed.clear()
        self._answer(self._dialogue, *lines)
        return [one for one in self._dialogue.complaints() if not one.startswith(_NOISE)]

    def check(self) -> None:
        """Make sure that the whole file system is consistent.

        Raises:
            HostFault: It is not; the details are e2fsck's.
        """
        done = run(
            *("e2fsck", "-f", "-n", self._image),
            cwd=self.scratch,
            limits=Confinement(_LIMITS, (self._raw,)),
            ok_codes=range(256),
            timeout_s=600,
        )
        if done.returncode != 0:
            raise HostFault(
                "the guest's file system is not consistent, so nothing was changed",
                hint="check the image with e2fsck",
                details=done.stdout.splitlines()[:20],
            )

    def _ask(self, line: str) -> bytes:
        if self._dialogue is None:
            self._dialogue = self._start(writable=self._will_change)
        return self._answer(self._dialogue, line)

    def _answer(self, dialogue: Dialogue, *lines: str) -> bytes:
        out = dialogue.ask(*lines)
        refused = [one for one in dialogue.complaints() if "while opening filesystem" in one]
        if refused:
            raise HostFault(
                f"debugfs cannot read the file system: {refused[-1]}",
                hint="check the image with e2fsck",
            )
        return out

    def _start(self, *, writable: bool) -> Dialogue:
        into, out = self.scratch / "in", self.scratch / "out"
        into.touch()
        out.touch()
        # -c leaves the bitmaps alone, which only matter to one who writes. Unbuffered, it
        # answers a question before it is asked the next.
        words = ["stdbuf", "-o0", "debugfs", "-w" if writable else "-c", "-f", "-", self._image]
        reads, writes = ((into,), (out, self._raw)) if writable else ((self._raw,), (out,))
        # What writes the disk writes to its end.
        limits = _LIMITS if writable else replace(_LIMITS, file_bytes=_MOST_TOLD)
        confinement = Confinement(limits, reads, writes)
        self._writable = writable
        # A comment is repeated as it is.
        return Dialogue("debugfs", confinement.wrapped(words), self.scratch, echo="#")


def quoted(word: str) -> str:
    """A word for a debugfs command: in quotes, with quotes inside doubled.

    Raises:
        InvalidRequest: It holds a control character, which no quoting helps.
    """
    if any(ord(char) < 32 or ord(char) == 127 for char in word):
        raise InvalidRequest(f"the path {word!r} holds a control character")
    return '"{}"'.format(word.replace('"', '""'))

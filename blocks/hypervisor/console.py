"""The serial console's log: what a guest said, and waiting for what it says next."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from blocks.errors import FiftyError, GuestFault

Pattern = re.Pattern[bytes]

_POLL_S = 0.03
_ALIVE_EVERY_S = 0.5
#: How long nothing must have come, for a line without an end to be taken as it is.
_QUIET_S = 0.25
_CHUNK = 64 * 1024
#: A line longer than this is taken for two: a guest can write without ever ending one.
_LONGEST_LINE = 8192
_TAIL_BYTES = 64 * 1024
#: Terminal control: colours, cursor moves, SeaBIOS' and syslinux' clearing of the screen.
_CONTROL = re.compile(rb"\x1b(\[[0-9;?]*[ -/]*[@-~]|[@-Z\\-_c]|\([A-Z0-9])|[\x00\x07\x0e\x0f]")

#: What each stage of a boot says first.
_STAGES: tuple[tuple[str, Pattern], ...] = (
    ("firmware", re.compile(rb"SeaBIOS \(version|^UEFI |BdsDxe:")),
    ("boot sector", re.compile(rb"Booting from Hard Disk|BdsDxe: starting")),
    (
        "boot loader",
        re.compile(rb"(SYS|EXT|ISO|PXE)LINUX \d|GNU GRUB|^Welcome to GRUB|GRUB loading"),
    ),
    ("kernel", re.compile(rb"Linux version \d|^\[ {0,4}\d+\.\d{6}\]|Decompressing Linux")),
    (
        "init",
        re.compile(
            rb"FIFTY-MARK init|Run /\S+ as init process|systemd\[1\]:|Welcome to (?!GRUB).{1,60}!|"
            rb"Cloud-init v\. \S+ running|INIT: version"
        ),
    ),
    ("login", re.compile(rb"FIFTY-MARK ready|\blogin: *$")),
)


@dataclass(frozen=True)
class ConsoleEvent:
    """A line that was waited for.

    Attributes:
        line: The line, without control sequences.
        pattern: The regular expression that it matches.
        stage: The last stage of the boot that the console told of, up to this line:
            `firmware`, `boot sector`, `boot loader`, `kernel`, `init`, `login` or `nothing`.
    """

    line: str
    pattern: str
    stage: str

    def __str__(self) -> str:
        """The line."""
        return self.line


class _Follower:
    """Reads a growing log from its beginning, line by line, in bounded memory.

    virtlogd begins a new file when one is full, and at each start of the domain; then
    the rest of the old one is read, and the new one from its beginning.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._fd = -1
        self._rest = b""
        self._rest_is_new = False
        self._last_growth = time.monotonic()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def lines(self, *, ending: bool = False) -> Iterator[bytes]:
        """What is new, line by line.

        A last line that has not ended is given once nothing has come for a moment: it is
        a prompt then, not a line of which half is written.

        Args:
            ending: Nothing more is waited for: give the last line as it is.
        """
        while chunk := self._read():
            self._last_growth = time.monotonic()
            *complete, self._rest = (self._rest + chunk).split(b"\n")
            self._rest_is_new = True
            for line in complete:
                yield _clean(line)
            if len(self._rest) > _LONGEST_LINE:
                yield _clean(self._rest)
                self._rest = b""
        quiet = time.monotonic() - self._last_growth >= _QUIET_S
        if self._rest and self._rest_is_new and (quiet or ending):
            self._rest_is_new = False
            yield _clean(self._rest)

    def _read(self) -> bytes:
        if self._fd < 0 and not self._open():
            return b""
        chunk = os.read(self._fd, _CHUNK)
        if chunk:
            return chunk
        here = os.fstat(self._fd)
        if here.st_size < os.lseek(self._fd, 0, os.SEEK_CUR):
            os.lseek(self._fd, 0, os.SEEK_SET)
            self._rest = b""
            return os.read(self._fd, _CHUNK)
        try:
            there = self._log.stat()
        except FileNotFoundError:
            return b""
        if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino):
            return b""
        self.close()
        return os.read(self._fd, _CHUNK) if self._open() else b""

    def _open(self) -> bool:
        try:
            self._fd = os.open(self._log, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return False
        return True


def guest_fault(message: str, log: Path) -> GuestFault:
    """The error of a guest that failed; its details are the last 20 lines of its console."""
    return GuestFault(message, details=tail(log))


#: Makes the error of a guest that has ended, of words and its console's log.
Ended = Callable[[str, Path], FiftyError]


def watch_console(
    log: Path,
    wanted: Sequence[Pattern],
    failing: Sequence[Pattern],
    timeout_s: float,
    alive: Callable[[], bool],
    ended: Ended = guest_fault,
) -> ConsoleEvent:
    """Wait until a guest says one of several things on its serial console.

    The log is read from its beginning, so that what was said before the call counts, and
    the call can be repeated. Lines are matched in their order, a last line without
    an end too, once nothing more comes (a prompt has none).

    Args:
        log: The console's log; need not be there yet.
        wanted: What ends the wait.
        failing: What makes it fail.
        timeout_s: Seconds from now.
        alive: Whether the guest still runs; asked about twice a second.
        ended: Makes the error of one that does not.

    Raises:
        GuestFault: The guest said something that fails, ended, or said nothing of it in
            time; the details are its last 20 lines.
    """
    follower = _Follower(log)
    try:
        return _watch(follower, log, wanted, failing, timeout_s, alive, ended)
    finally:
        follower.close()


@contextmanager
def failures(log: Path, failing: Sequence[Pattern]) -> Iterator[Callable[[], None]]:
    """Looks at a console, to be repeated while something else is waited for.

    Args:
        log: The console's log; need not be there yet. It is read from its beginning.
        failing: What a guest says that has failed.

    Yields:
        The look, which raises GuestFault when the guest has said such a thing.
    """
    follower = _Follower(log)

    def look() -> None:
        for line in follower.lines():
            _check(line, failing, log)

    try:
        yield look
    finally:
        follower.close()


def _check(line: bytes, failing: Sequence[Pattern], log: Path) -> None:
    if any(pattern.search(line) for pattern in failing):
        said = _text(line)
        raise GuestFault(f"the guest says: {said}", details=tail(log, about=said))


def _watch(
    follower: _Follower,
    log: Path,
    wanted: Sequence[Pattern],
    failing: Sequence[Pattern],
    timeout_s: float,
    alive: Callable[[], bool],
    ended: Ended,
) -> ConsoleEvent:
    stage = "nothing"
    deadline = time.monotonic() + timeout_s
    next_look = time.monotonic()
    lives, late = True, False
    while True:
        for line in follower.lines(ending=late or not lives):
            stage = stage_of(line) or stage
            _check(line, failing, log)
            for pattern in wanted:
                if pattern.search(line):
                    return ConsoleEvent(_text(line), _text(pattern.pattern), stage)
        if not lives:
            raise ended(f"the guest has ended; its console had come to: {stage}", log)
        if late:
            what = f"the guest's console came to: {stage}, and to nothing of what was waited for"
            raise guest_fault(f"{what}, within {timeout_s:g} s", log)
        # One more read follows what is found here: for what was said until then.
        now = time.monotonic()
        late = now >= deadline
        if now >= next_look:
            lives = alive()
            next_look = now + _ALIVE_EVERY_S
        if lives and not late:
            time.sleep(_POLL_S)


def stage_of(line: bytes) -> str | None:
    """The stage of the boot that a line tells of, or None."""
    found = None
    for name, pattern in _STAGES:
        if pattern.search(line):
            found = name
    return found


def milestones(log: Path) -> list[tuple[str, str]]:
    """The stages of the boot that a console tells of, in their order, each once.

    Returns:
        (stage, its first line); see `ConsoleEvent.stage` for the stages. A kernel with
        `quiet` says nothing, so that its stage can be missing.
    """
    found: dict[str, str] = {}
    follower = _Follower(log)
    try:
        for line in follower.lines(ending=True):
            stage = stage_of(line)
            if stage is not None:
                found.setdefault(stage, _text(line))
    finally:
        follower.close()
    return list(found.items())


def tail(log: Path, lines: int = 20, about: str = "") -> list[str]:
    """The last lines of a console's log, without control sequences; none if there is no log.

    A line that they are `about` is among them: a kernel tells more than that after a panic.
    """
    try:
        with log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - _TAIL_BYTES))
            content = file.read(_TAIL_BYTES)
    except FileNotFoundError:
        return []
    cleaned = [_text(_clean(line)) for line in content.split(b"\n")]
    said = [line for line in cleaned if line.strip()]
    if about in said:
        del said[said.index(about) + 1 + lines // 2 :]
    return said[-lines:] if lines > 0 else []


def _clean(line: bytes) -> bytes:
    return _CONTROL.sub(b"", line).strip(b"\r")


def _text(line: bytes) -> str:
    """Printable text: what a guest says must not move the reader's cursor."""
    text = line.decode(errors="replace")[:500]
    return "".join(char if char.isprintable() else " " for char in text).strip()

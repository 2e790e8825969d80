"""Running other programs: the one place that starts a process and waits for it."""

from __future__ import annotations

import errno
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from blocks.errors import NO_ROOM_HINT, HostFault, Transient, Unsupported

_LONGEST_MESSAGE = 500
_CONFINED = Path(__file__).with_name("confined.py")
_OPEN_FILES = Path("/proc/self/fd")
#: Where a program of many threads waits for a disk, glibc reserves 64 MiB of address space for
#: each thread's own heap (mallopt(3), M_ARENA_MAX): under a limit QEMU gets no more threads then.
_FEW_ARENAS = {"MALLOC_ARENA_MAX": "1"}


@dataclass(frozen=True)
class Limits:
    """Limits for a program that reads content one does not trust.

    Attributes:
        memory_bytes: Address space (RLIMIT_AS).
        cpu_s: Processor seconds (RLIMIT_CPU).
        file_bytes: Length of any file that it writes (RLIMIT_FSIZE); none: no limit.
    """

    memory_bytes: int
    cpu_s: int
    file_bytes: int | None = None

    def wrapped(self, words: Sequence[str]) -> list[str]:
        """The command line that runs `words` under these limits (prlimit(1))."""
        options = [f"--as={self.memory_bytes}", f"--cpu={self.cpu_s}"]
        if self.file_bytes is not None:
            options.append(f"--fsize={self.file_bytes}")
        return ["prlimit", *options, "--", *words]


@dataclass(frozen=True)
class Confinement:
    """Limits, no network, and no file but those that are named (see `blocks.confined`).

    Attributes:
        limits: Limits of the program's resources.
        reads: What it may read besides programs and their libraries; a file that is open
            here (`open_name`) is handed on.
        writes: What it may write and read; has to exist.
    """

    limits: Limits
    reads: tuple[Path, ...] = ()
    writes: tuple[Path, ...] = ()

    @property
    def handles(self) -> tuple[int, ...]:
        """The open files that it inherits."""
        return tuple(int(path.name) for path in self.reads if path.parent == _OPEN_FILES)

    def wrapped(self, words: Sequence[str]) -> list[str]:
        """The command line that runs `words` so."""
        limits = (self.limits.memory_bytes, self.limits.cpu_s, self.limits.file_bytes)
        spec = ["-" if limit is None else str(limit) for limit in limits]
        spec += [str(len(self.reads)), str(len(self.writes))]
        spec += [str(path) for path in (*self.reads, *self.writes)]
        return [sys.executable, "-I", "-S", str(_CONFINED), *spec, *words]


def open_name(file: IO[bytes]) -> Path:
    """The name of an open file, for a confined program that is to read just that file.

    Whatever its path leads to by now (proc(5), `/proc/pid/fd`).
    """
    return _OPEN_FILES / str(file.fileno())


def run(
    *argv: str | Path,
    stdin: str | None = None,
    timeout_s: float = 60.0,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    ok_codes: Sequence[int] = (0,),
    limits: Limits | Confinement | None = None,
    pass_fds: Sequence[int] = (),
    output: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and give back what it said.

    Args:
        argv: The program and its arguments; never goes through a shell.
        stdin: Text for its standard input; none means an empty one.
        timeout_s: Seconds after which it is killed.
        env: Its whole environment; none means ours.
        cwd: Its working directory.
        ok_codes: The exit codes that count as success.
        limits: Memory and time limits, or more than that, for untrusted input.
        pass_fds: Open files that it inherits, under the same numbers.
        output: A file that takes its standard output, byte by byte; none: it is in `stdout`.

    Returns:
        The finished process with `stdout`, `stderr` (text, undecodable bytes replaced).

    Raises:
        Unsupported: The program is not installed.
        Transient: It did not end in time.
        HostFault: It ended with another code; the message is the last thing it said.
    """
    words = [str(word) for word in argv]
    handles = limits.handles if isinstance(limits, Confinement) else ()
    if limits is not None:
        env = {**(os.environ if env is None else env), **_FEW_ARENAS}
    try:
        with output.open("wb") if output else nullcontext(subprocess.PIPE) as stdout:
            done = subprocess.run(
                limits.wrapped(words) if limits else words,
                input=stdin if stdin is not None else "",
                stdout=stdout,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                timeout=timeout_s,
                env=env,
                cwd=cwd,
                pass_fds=(*pass_fds, *handles),
                check=False,
            )
    except FileNotFoundError as error:
        raise Unsupported(
            f"the program {words[0]} is not installed",
            hint="install what deployments/packages-debian.txt lists",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise Transient(f"{shlex.join(words)} did not end within {timeout_s:g} s") from error
    if done.returncode not in ok_codes:
        said = " ".join((done.stderr.strip() or done.stdout or "").split())[-_LONGEST_MESSAGE:]
        full = os.strerror(errno.ENOSPC) in said
        raise HostFault(
            f"{shlex.join(words)} ended with {done.returncode}: {said}",
            hint=NO_ROOM_HINT if full else "",
        )
    return done

"""Running other programs: the one place that starts a process and waits for it."""

from __future__ import annotations

import errno
import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from blocks.errors import NO_ROOM_HINT, HostFault, Transient, Unsupported

_LONGEST_MESSAGE = 500


@dataclass(frozen=True)
class Limits:
    """Limits for a program that reads content one does not trust.

    Attributes:
        memory_bytes: Address space (RLIMIT_AS).
        cpu_s: Processor seconds (RLIMIT_CPU).
    """

    memory_bytes: int
    cpu_s: int

    def wrapped(self, words: Sequence[str]) -> list[str]:
        """The command line that runs `words` under these limits (prlimit(1))."""
        return ["prlimit", f"--as={self.memory_bytes}", f"--cpu={self.cpu_s}", "--", *words]


def run(
    *argv: str | Path,
    stdin: str | None = None,
    timeout_s: float = 60.0,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    ok_codes: Sequence[int] = (0,),
    limits: Limits | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and give back what it said.

    Args:
        argv: The program and its arguments; never goes through a shell.
        stdin: Text for its standard input; none means an empty one.
        timeout_s: Seconds after which it is killed.
        env: Its whole environment; none means ours.
        cwd: Its working directory.
        ok_codes: The exit codes that count as success.
        limits: Memory and time limits, for untrusted input.

    Returns:
        The finished process with `stdout`, `stderr` (text, undecodable bytes replaced).

    Raises:
        Unsupported: The program is not installed.
        Transient: It did not end in time.
        HostFault: It ended with another code; the message is the last thing it said.
    """
    words = [str(word) for word in argv]
    if limits:
        words = limits.wrapped(words)
    try:
        done = subprocess.run(
            words,
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            env=env,
            cwd=cwd,
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
        said = " ".join((done.stderr.strip() or done.stdout).split())[-_LONGEST_MESSAGE:]
        full = os.strerror(errno.ENOSPC) in said
        raise HostFault(
            f"{shlex.join(words)} ended with {done.returncode}: {said}",
            hint=NO_ROOM_HINT if full else "",
        )
    return done

"""Running a command in a guest: what it said, as much of it as is kept, and how it ended."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass

#: A guest may say as much as it likes: this much of the beginning and of the end is kept.
KEPT_BYTES = 32 * 1024
_CHUNK = 64 * 1024


@dataclass(frozen=True)
class Execution:
    """A command that was run.

    Attributes:
        exit_code: What it ended with; None where it was given up. 255 is also what ssh
            ends with when it loses the guest (ssh(1)).
        output: Standard output and standard error, as they came.
        left_out: How many bytes of the output's middle were not kept.
        duration_s: Seconds.
    """

    exit_code: int | None
    output: str
    left_out: int
    duration_s: float


def execute(words: Sequence[str], timeout_s: float) -> Execution:
    """Run a program, here one that runs another in a guest, with an empty standard input.

    Args:
        words: The program and its arguments.
        timeout_s: Seconds after which it is given up.
    """
    begun = time.monotonic()
    output = _Output()
    with subprocess.Popen(
        list(words),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        try:
            ended = _listen(process.stdout.fileno(), output, begun + timeout_s)
            code = _end(process, begun + timeout_s) if ended else None
        finally:
            # Given up, or stopped by a signal to us; a no-op for one that has ended.
            process.kill()
    kept = output.text()
    return Execution(code, kept, output.left_out, time.monotonic() - begun)


def _listen(handle: int, output: _Output, deadline: float) -> bool:
    """Take in what is said until its end; False where the time is up first."""
    with selectors.DefaultSelector() as selector:
        selector.register(handle, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            if selector.select(left):
                chunk = os.read(handle, _CHUNK)
                if not chunk:
                    return True
                output.add(chunk)
    return False


def _end(process: subprocess.Popen[bytes], deadline: float) -> int | None:
    try:
        return process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return None


class _Output:
    """The beginning and the end of what was said."""

    def __init__(self) -> None:
        self._head = b""
        self._tail = b""
        self.left_out = 0

    def add(self, chunk: bytes) -> None:
        room = KEPT_BYTES - len(self._head)
        self._head += chunk[:room]
        tail = self._tail + chunk[room:]
        self.left_out += max(0, len(tail) - KEPT_BYTES)
        self._tail = tail[-KEPT_BYTES:]

    def text(self) -> str:
        gap = f"\n[... {self.left_out} bytes left out ...]\n".encode() if self.left_out else b""
        return (self._head + gap + self._tail).decode(errors="replace")

"""A program that is asked line by line, and answers: debugfs, guestfish."""

from __future__ import annotations

import os
import secrets
import select
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from blocks.errors import HostFault, Transient, UnsafeImage, Unsupported

_MOST_SAID = 16 * 1024 * 1024


class Dialogue:
    """A running program that is asked, and answers.

    Args:
        name: What it is called in messages.
        words: Its command line.
        folder: Where it runs.
        echo: A command of its own that makes it say a word: the word comes after it.
        timeout_s: Seconds that an answer may take.
        env: Its whole environment; none means ours.
    """

    def __init__(
        self,
        name: str,
        words: Sequence[str],
        folder: Path,
        *,
        echo: str,
        timeout_s: float = 120.0,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._name = name
        self._echo = echo
        self._timeout_s = timeout_s
        self._complaints: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `close`
        try:
            self._program = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._complaints,
                bufsize=0,
                cwd=folder,
                env=env,
            )
        except FileNotFoundError as error:
            self._complaints.close()
            raise Unsupported(f"the program {words[0]} is not installed") from error

    def close(self) -> None:
        """End its input, and wait until it has ended: only then is all written."""
        with self._program:
            if self._program.stdin is not None:
                self._program.stdin.close()
            try:
                self._program.wait(self._timeout_s)
            except subprocess.TimeoutExpired:
                self._program.kill()
        self._complaints.close()

    def ask(self, *lines: str) -> bytes:
        """Run commands; what it said to them.

        Raises:
            HostFault: It has ended.
            UnsafeImage: It says more than any honest file system makes it say.
            Transient: It does not answer.
        """
        # What a file system holds cannot guess it.
        mark = f"{secrets.token_hex(16)}"
        text = "".join(f"{line}\n" for line in (*lines, f"{self._echo}{mark}"))
        try:
            self._send(text.encode("utf-8", "surrogateescape"))
            out = self._until(mark.encode())
        except BrokenPipeError:
            out = None
        if out is None:
            why = (self.complaints() or ["it said nothing"])[-1]
            raise HostFault(f"{self._name} has ended: {why}", hint="check the image with e2fsck")
        return out

    def complaints(self) -> list[str]:
        """The lines that it complained of until now."""
        self._complaints.seek(0)
        said = self._complaints.read(_MOST_SAID).decode("utf-8", "replace")
        return [line for line in said.splitlines() if line]

    def _send(self, content: bytes) -> None:
        assert self._program.stdin is not None  # noqa: S101 - asked for above
        rest = memoryview(content)
        while rest:
            rest = rest[self._program.stdin.write(rest) or 0 :]

    def _until(self, mark: bytes) -> bytes | None:
        """All that it says up to a mark; None where it ends before."""
        assert self._program.stdout is not None  # noqa: S101 - asked for above
        handle = self._program.stdout.fileno()
        said = bytearray()
        deadline = time.monotonic() + self._timeout_s
        # The mark is the last that it says, but for the end of the line.
        while mark not in said[-len(mark) - 2 :]:
            if not select.select([handle], [], [], max(deadline - time.monotonic(), 0))[0]:
                self._program.kill()
                raise Transient(f"{self._name} did not answer within {self._timeout_s:g} s")
            part = os.read(handle, 1 << 16)
            if not part:
                return None
            said += part
            if len(said) > _MOST_SAID:
                self._program.kill()
                raise UnsafeImage("a directory of the image has no end")
        return bytes(said[: said.rindex(mark)])

"""The `fifty` command as quickstart uses it: run, with its JSON read or its output shown."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from blocks.errors import FiftyError
from blocks.settings import DEFAULT_HOME
from deployments.prefect_environment import without_prefect


class CommandFailed(FiftyError):
    """A `fifty` command refused, or failed; the message and the hint are its own."""


class FiftyCommand:
    """The command line of this project, for one FIFTY_HOME.

    Args:
        home: FIFTY_HOME.
        program: The program; by default the one in the environment that runs this.
    """

    def __init__(self, home: Path, program: Path | None = None) -> None:
        self._home = home
        self._program = program or Path(sys.executable).with_name("fifty")

    def run(self, *words: str, ok_codes: tuple[int, ...] = (0,)) -> object:
        """Run a command with `--json` and give back what it printed.

        Args:
            words: The command and its options.
            ok_codes: The exit codes that count as success.

        Raises:
            CommandFailed: It ended with another code.
        """
        done = subprocess.run(
            [self._program, *words, "--json"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=self._environment(),
            check=False,
        )
        try:
            said = json.loads(done.stdout)
        except json.JSONDecodeError:
            said = None
        if done.returncode in ok_codes:
            return said
        typed = shlex.join(("fifty", *words))
        if isinstance(said, dict) and "message" in said:
            raise CommandFailed(
                f"`{typed}`: {said['message']}",
                hint=said.get("hint", ""),
                details=said.get("details", ()),
            )
        raise CommandFailed(
            f"`{typed}` {_ended(done.returncode)}", details=done.stderr.splitlines()[-10:]
        )

    def show(self, *words: str) -> None:
        """Run a command with its output on this terminal.

        Raises:
            CommandFailed: It failed; it has said why.
        """
        done = subprocess.run([self._program, *words], env=self._environment(), check=False)
        if done.returncode:
            raise CommandFailed(
                f"`{shlex.join(('fifty', *words))}` {_ended(done.returncode)}",
                hint="run it again to go on, or with --down to take everything away",
            )

    def items(self, kind: str, *options: str) -> list[dict[str, Any]]:
        """What `fifty KIND list` tells of."""
        listed = self.run(kind, "list", *options)
        if not isinstance(listed, list):
            raise CommandFailed(f"`fifty {kind} list --json` did not print a JSON list")
        return listed

    def as_typed(self, program: Path | str = "") -> str:
        """How a person in this directory types a program (`fifty`) for this home."""
        home = "" if self._home == DEFAULT_HOME else f"FIFTY_HOME={shlex.quote(str(self._home))} "
        if not program:
            here = Path.cwd()
            inside = self._program.is_relative_to(here)
            program = self._program.relative_to(here) if inside else self._program
        return f"{home}{program}"

    def _environment(self) -> dict[str, str]:
        return {**without_prefect(os.environ), "FIFTY_HOME": str(self._home)}


def _ended(code: int) -> str:
    """How a command ended, in words; a negative code is a signal's number."""
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"

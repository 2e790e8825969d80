"""Runs `fifty` again and again, each time in a fork of a process that has imported everything.

`python -m tests.forked` reads lines of JSON, `[words, fault]`, and answers each with the
wait status's exit code (negative for a signal). A delete that is killed forty times takes
forty times a second then, and not forty times five.
"""

from __future__ import annotations

import json
import os
import sys

from deployments.cli.app import run
from deployments.service.forkserver import import_everything
from tasks.faults import VARIABLE


def main() -> None:
    """Serve standard input to its end."""
    import_everything()
    for line in sys.stdin:
        words, fault = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _command(words, fault)
        _pid, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _command(words: list[str], fault: str) -> None:
    """Be the command `fifty`, and end."""
    os.environ[VARIABLE] = fault
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    # What it says is not the answer.
    os.dup2(sys.stderr.fileno(), 1)
    code = run(words)
    # As an interpreter ends: Prefect's threads have something to send yet.
    sys.exit(code)


if __name__ == "__main__":
    main()

"""Runs `fifty` again and again, each time in a fork of a process that has imported everything.

`python -m tests.forked` reads lines of JSON, `[words, fault, folder]`, and answers each with the
wait status's exit code (negative for a signal); what the command said is in the folder's files
`out` and `err` then. A delete that is killed forty times takes forty times a second then, and
not forty times five.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from blocks.settings import settings
from deployments import prefect_settings
from deployments.cli.app import run
from deployments.service.forkserver import import_everything
from tasks.faults import VARIABLE
from tests.cloud import Cloud

_OUT, _ERR = "out", "err"


class ForkedCloud(Cloud):
    """A site whose commands are run in forks of one process, one after the other.

    Args:
        cloud: The site.
        process: The one that forks.
        folder: Of this one's own.
    """

    def __init__(self, cloud: Cloud, process: subprocess.Popen[str], folder: Path) -> None:
        super().__init__(cloud.home, cloud.api_url)
        self._process = process
        self._folder = folder

    def run(self, *words: str, fault: str = "") -> subprocess.CompletedProcess[str]:
        """Run `fifty`, whatever comes of it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        order = json.dumps([words, fault, str(self._folder)])
        print(order, file=self._process.stdin, flush=True)
        code = int(self._process.stdout.readline())
        out, err = ((self._folder / name).read_text() for name in (_OUT, _ERR))
        return subprocess.CompletedProcess(["fifty", *words], code, out, err)


@contextmanager
def forked(cloud: Cloud, environment: Mapping[str, str] | None = None) -> Iterator[ForkedCloud]:
    """The site with commands that cost no start of an interpreter.

    Args:
        cloud: The site.
        environment: What its commands run in; none: what this process runs in.
    """
    with (
        TemporaryDirectory() as folder,
        subprocess.Popen(
            [sys.executable, "-m", "tests.forked"],
            env=cloud.environment("") if environment is None else environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        yield ForkedCloud(cloud, process, Path(folder))


def main() -> None:
    """Serve standard input to its end."""
    # As each command does it before it imports Prefect.
    prefect_settings.prepare(settings(), console=False)
    settings.cache_clear()
    import_everything()
    for line in sys.stdin:
        words, fault, folder = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _command(words, fault, Path(folder))
        _pid, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _command(words: list[str], fault: str, folder: Path) -> None:
    """Be the command `fifty`, and end."""
    if fault:
        os.environ[VARIABLE] = fault
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for name, number in ((_OUT, 1), (_ERR, 2)):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    code = run(words)
    # As an interpreter ends: Prefect's threads have something to send yet.
    sys.exit(code)


if __name__ == "__main__":
    main()

"""Who serves a FIFTY_HOME: one process, which holds a lock and has written down who it is.

Imports neither Prefect nor the flows: `fifty serve --status` asks this first.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from blocks.errors import Conflict, HostFault
from deployments import processes


class Serving(BaseModel):
    """A running `fifty serve`, as `FIFTY_HOME/serve.json` keeps it.

    Attributes:
        since: When it began.
        ready: When it began to take runs; None before that.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    process: processes.Process
    since: datetime
    ready: datetime | None = None


def running(home: Path) -> Serving | None:
    """The `fifty serve` that runs for this home."""
    try:
        serving = Serving.model_validate_json(_record(home).read_text())
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None
    return serving if processes.is_alive(serving.process) else None


@contextmanager
def alone(home: Path) -> Iterator[Serving]:
    """Be the one that serves this home, and say so.

    Yields:
        What was written down.

    Raises:
        Conflict: Another process serves it.
    """
    with (home / "serve.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = running(home)
            who = f"as process {other.process.pid}" if other else "and is just starting"
            raise Conflict(
                f"fifty serve runs already for {home}, {who}",
                hint="`fifty serve --status` tells what it does; SIGTERM stops it",
            ) from None
        process = processes.identify(os.getpid())
        if process is None:
            raise HostFault("/proc does not show this process")
        serving = Serving(process=process, since=datetime.now(UTC))
        _write(home, serving)
        try:
            yield serving
        finally:
            _record(home).unlink(missing_ok=True)


def note_ready(home: Path, serving: Serving) -> None:
    """Write down that runs are taken from now on."""
    _write(home, serving.model_copy(update={"ready": datetime.now(UTC)}))


def _record(home: Path) -> Path:
    return home / "serve.json"


def _write(home: Path, serving: Serving) -> None:
    written = _record(home).with_suffix(".new")
    written.write_text(serving.model_dump_json(indent=2) + "\n")
    written.replace(_record(home))

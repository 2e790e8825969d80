"""How far a long step is: in the run's log, and as a progress artifact that the UI draws."""

from __future__ import annotations

import contextvars
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple
from uuid import UUID

from httpx import HTTPError
from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact

_TELL_EVERY_S = 2.0
_MIB = 1024**2


class _At(NamedTuple):
    words: str
    percent: float


class Meter:
    """What a step's own work says how far it is, as often as it likes: nobody waits for it.

    Args:
        what: What is being done, in words.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._at: _At | None = None

    @property
    def at(self) -> _At | None:
        """How far it is, in words and as a part of a hundred; None before it has begun."""
        return self._at

    def bytes(self, done: int, total: int | None = None) -> None:
        """Say how many bytes are done, of how many, where that is known."""
        words = f"{self._what}: {done // _MIB}"
        if not total:
            self._at = _At(f"{words} MiB", 0.0)
        else:
            self._at = _At(f"{words} of {total // _MIB} MiB", min(100.0, 100 * done / total))

    def percent(self, percent: float) -> None:
        """Say how much of a hundred is done, where bytes are not known."""
        self._at = _At(f"{self._what}: {percent:.0f} %", percent)


@contextmanager
def telling(doing: str, name: str, every_s: float = _TELL_EVERY_S) -> Iterator[Meter]:
    """Tell how far a step is, now and then, from a thread of its own.

    What is over before it would be told the first time is not told at all.

    Args:
        doing: What is being done: `fetching`.
        name: To what; a word of the artifact's key.
        every_s: Seconds from one time to the next.

    Yields:
        What the step says it to.
    """
    meter = Meter(f"{doing} {name}")
    key = re.sub("[^a-z0-9]+", "-", f"{name}-progress".lower()).strip("-")
    over = threading.Event()
    context = contextvars.copy_context()
    teller = threading.Thread(
        target=context.run, args=(_tell, meter, key, over, every_s), name="meter", daemon=True
    )
    teller.start()
    try:
        yield meter
    finally:
        over.set()
        teller.join()


def _tell(meter: Meter, key: str, over: threading.Event, every_s: float) -> None:
    artifact: UUID | None = None
    told: _At | None = None
    while not over.wait(every_s) or told is not None:
        at = meter.at
        if at is not None and at != told:
            told = at
            get_run_logger().info(at.words)
            try:
                artifact = _draw(artifact, key, at)
            except HTTPError as error:
                # The log has it; the step does not fail for want of a picture.
                get_run_logger().warning("the progress artifact is not up to date: %s", error)
        if over.is_set():
            return


def _draw(artifact: UUID | None, key: str, at: _At) -> UUID:
    """Create the artifact of a step, or bring it up to date."""
    if artifact is not None:
        update_progress_artifact(artifact, progress=at.percent, description=at.words)
        return artifact
    made = create_progress_artifact(progress=at.percent, key=key, description=at.words)
    assert isinstance(made, UUID)  # noqa: S101 - for the type checker: this is no coroutine
    return made

"""A SIGTERM is heard, whatever the main thread happens to be doing when it comes."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

import pytest
from prefect.exceptions import TerminationSignal

from tasks.cancelling import never_lost

#: Only a signal that was lost lets somebody wait so long.
LIMIT_S = 60.0


class Freed:
    """Gets a SIGTERM while it is freed; what is raised in there goes nowhere."""

    def __del__(self) -> None:
        """Be told to end."""
        os.kill(os.getpid(), signal.SIGTERM)


def as_prefect(number: int, _frame: FrameType | None) -> None:
    """What Prefect does with a SIGTERM, while a flow runs."""
    raise TerminationSignal(signal=number)


def test_a_sigterm_that_comes_while_an_object_is_freed_is_heard() -> None:
    before = signal.signal(signal.SIGTERM, as_prefect)
    try:
        with pytest.raises(TerminationSignal), never_lost():
            Freed()
            threading.Event().wait(LIMIT_S)
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_other_errors_of_objects_that_are_freed_are_told_as_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Broken:
        def __del__(self) -> None:
            raise ValueError("broken")

    told = []
    monkeypatch.setattr("sys.unraisablehook", lambda ignored: told.append(ignored.exc_type))
    with never_lost():
        Broken()
    assert told == [ValueError]

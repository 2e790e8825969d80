"""A `fifty` command that runs while a test breaks something."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from blocks.errors import NotFound
from blocks.state import Entry, StepState
from tests.cloud import TIMEOUT_S, Cloud
from tests.waiting import eventually


def begun(_entry: Entry) -> bool:
    """Whether a step has begun."""
    return True


def is_done(entry: Entry) -> bool:
    """Whether a step is done."""
    return entry.state is StepState.DONE


def failed_once(entry: Entry) -> bool:
    """Whether a step has failed, and perhaps begun again."""
    return entry.attempts > 1 or entry.state is StepState.FAILED


def undo_failed(entry: Entry) -> bool:
    """Whether an undo has failed; the next try of it hides that for a moment."""
    return entry.state is StepState.UNDO_FAILED


class Building:
    """A `fifty vm ...` of one VM under way; leaving the `with` block ends it.

    Args:
        cloud: The site.
        name: The VM.
        words: The command.
        settings: Further environment variables.
    """

    def __init__(self, cloud: Cloud, name: str, *words: str, **settings: str) -> None:
        self._cloud = cloud
        self._name = name
        self._process = subprocess.Popen(
            [str(Path(sys.executable).with_name("fifty")), *words, "--json"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **settings},
        )

    def __enter__(self) -> Building:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def until(self, steps: range, seen: Callable[[Entry], bool]) -> Entry:
        """Wait until something is to be seen at one of these steps; the step."""

        def look() -> Entry | None:
            try:
                journal = self._cloud.journal(self._cloud.build(self._name))
            except NotFound:
                journal = {}
            found = next((journal[n] for n in steps if n in journal and seen(journal[n])), None)
            if found is None and self._process.poll() is not None:
                raise AssertionError(f"it ended: {self._process.communicate()}")
            return found

        entry = eventually(look, f"sign of {seen.__name__} at steps {steps}")
        assert entry is not None
        return entry

    def end(self, code: int) -> Any:  # noqa: ANN401 - any JSON
        """Wait for its end, check its exit code, and give back its document."""
        out, said = self._process.communicate(timeout=TIMEOUT_S)
        assert self._process.returncode == code, f"{out}\n{said}"
        assert "Traceback" not in said, said
        return json.loads(out)

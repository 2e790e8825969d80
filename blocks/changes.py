"""The changes that a step makes on the host: in words, and as the command one would type.

Whatever changes the host calls `record` right after the change. The engine collects
what a step recorded with `collecting`, and puts it into the journal, the task run's log
and the summary artifact. Outside of a step `record` does nothing.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from pydantic import BaseModel, ConfigDict


class Change(BaseModel):
    """One change to the host.

    Attributes:
        what: The change in words ("Created the bridge brq0123456789a").
        command: What a person would have typed for the same effect.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    what: str
    command: str


_sink: ContextVar[list[Change] | None] = ContextVar("fifty_changes", default=None)


@contextmanager
def collecting() -> Iterator[list[Change]]:
    """Collect the changes recorded inside the `with` block.

    Yields:
        The list that grows with every `record`.
    """
    changes: list[Change] = []
    token = _sink.set(changes)
    try:
        yield changes
    finally:
        _sink.reset(token)


def record(what: str, command: str | Sequence[str]) -> None:
    """Record a change that has just been made.

    Args:
        what: The change in words.
        command: What a person would have typed; a sequence is quoted for the shell.
    """
    changes = _sink.get()
    if changes is not None:
        text = command if isinstance(command, str) else shlex.join(command)
        changes.append(Change(what=what, command=text))

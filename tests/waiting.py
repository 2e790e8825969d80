"""Waiting for a condition, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Thing = TypeVar("Thing")


def eventually(look: Callable[[], Thing], what: str, limit_s: float = 300.0) -> Thing:
    """Look until there is something to see.

    Args:
        look: Gives something true when it is there.
        what: For the message.
        limit_s: A limit that only something broken reaches.
    """
    deadline = time.monotonic() + limit_s
    while True:
        seen = look()
        if seen:
            return seen
        assert time.monotonic() < deadline, f"no {what} within {limit_s:g} s"
        time.sleep(0.2)

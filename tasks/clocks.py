"""The three clocks of a build: accepted to running, to booted, to login."""

from __future__ import annotations

from blocks.resources import Clocks
from blocks.state import Build, StateStore
from blocks.state.tables.base import now


def set_clock(store: StateStore, build: Build, name: str) -> None:
    """Stop a clock, unless it has been stopped before (a step that is repeated).

    Args:
        store: Where the clocks are kept.
        build: The build; it was accepted when its row was written.
        name: `running_s`, `booted_s` or `login_s`.
    """
    clocks = store.instances.get(build.id).clocks
    if getattr(clocks, name) is None:
        elapsed = (now() - build.accepted_at).total_seconds()
        stopped = Clocks(**{**clocks.model_dump(), name: round(elapsed, 3)})
        store.instances.update(build.id, clocks=stopped.model_dump())

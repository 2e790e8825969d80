"""Waiting for the ends of many flow runs with one question for all of them."""

from __future__ import annotations

import threading
import time
from typing import Any

from tests.service.served import FINAL, ask
from tests.waiting import eventually

#: Seconds between two questions: each one costs the server what a step costs a build.
_ASK_EVERY_S = 0.4


class Ends:
    """The ends of the flow runs that somebody waits for, in several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[str] = set()
        self._ended: dict[str, dict[str, Any]] = {}
        self._asked = 0.0

    def of(self, flow_run_id: str) -> dict[str, Any]:
        """Wait until a flow run has ended, however; its last state."""
        with self._lock:
            self._open.add(flow_run_id)
        return eventually(lambda: self._look(flow_run_id), f"end of {flow_run_id}") or {}

    def _look(self, flow_run_id: str) -> dict[str, Any] | None:
        with self._lock:
            if self._open and time.monotonic() - self._asked >= _ASK_EVERY_S:
                self._ask()
                self._asked = time.monotonic()
            return self._ended.get(flow_run_id)

    def _ask(self) -> None:
        wanted = {"id": {"any_": sorted(self._open)}, "state": {"type": {"any_": FINAL}}}
        for run in ask("POST", "/flow_runs/filter", json={"flow_runs": wanted}):
            self._ended[run["id"]] = run["state"]
            self._open.discard(run["id"])

"""Many requests at once: none lost, none twice, so many builds at a time as the limit says."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest

from tests.inventory import differences
from tests.service.served import FINAL, Served, ask
from tests.service.triggers import MICRO, fault, trigger
from tests.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

REQUESTS = 50
CLIENTS = 10
AT_A_TIME = 4


def moment(text: str) -> datetime:
    """A time as the API gives it."""
    return datetime.fromisoformat(text)


def runs_of(ids: list[str]) -> list[dict[str, Any]]:
    """These flow runs, as they are now."""
    body = {"flow_runs": {"id": {"any_": ids}}, "limit": 200}
    return list(ask("POST", "/flow_runs/filter", json=body))


def most_at_once(runs: list[dict[str, Any]]) -> int:
    """How many of these runs ran at the same time, at most."""
    ends = [(moment(run["start_time"]), 1) for run in runs]
    ends += [(moment(run["end_time"]), -1) for run in runs]
    # One that ended when another began was not beside it.
    running, most = 0, 0
    for _when, change in sorted(ends, key=lambda end: (end[0], end[1])):
        running += change
        most = max(most, running)
    return most


def test_a_burst_of_requests(served: Served) -> None:
    before = served.cloud.inventory()
    names = [f"burst-{number}" for number in range(REQUESTS)]

    def post(name: str) -> str:
        # The whole control plane works; QEMU is not started.
        request = {**MICRO, "name": name, "request_id": name}
        return trigger("create-vm", request, idempotency_key=name, job_variables=fault("44:raise"))

    with ThreadPoolExecutor(CLIENTS) as clients:
        ids = list(clients.map(post, names))
        again = list(clients.map(post, names[:CLIENTS]))
    assert len(set(ids)) == REQUESTS
    assert again == ids[:CLIENTS], "the same key is the same run"

    waiting: Counter[str] = Counter()

    def all_ended() -> bool:
        runs = runs_of(ids)
        assert len(runs) == REQUESTS
        left = [run for run in runs if run["state"]["type"] not in FINAL]
        waiting.update(run["state"]["name"] for run in left if run["state"]["type"] == "SCHEDULED")
        return not left

    eventually(all_ended, "end of all runs", 900)
    runs = runs_of(ids)
    assert Counter(run["state"]["name"] for run in runs) == {"RolledBack": REQUESTS}
    assert {run["run_count"] for run in runs} == {1}
    assert most_at_once(runs) <= AT_A_TIME
    assert waiting, "those whose turn has not come are seen to wait"
    assert {run["work_queue_name"] for run in runs} == {"builds"}

    store = served.cloud.world.store
    builds = [store.builds.of_request("vm", "default", name) for name in names]
    assert [build.flow_run_id for build in builds if build] == ids
    assert {build.fault["step"] for build in builds if build and build.fault} == {44}
    assert {build.generation for build in builds if build} == {1}
    served.cloud.delete(build.id for build in builds if build)
    assert differences(before, served.cloud.inventory()) == []

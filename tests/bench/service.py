"""From the POST to step 1, with `fifty serve` up; and what two hundred runs leave in memory."""

from __future__ import annotations

import re
import signal
import uuid
from datetime import UTC, datetime
from pathlib import Path

from blocks.settings import settings
from tests.bench.figures import Figure, of_samples, say
from tests.cloud import Cloud
from tests.service.served import Served

TARGET_S = 1.5
MEMORY_TARGET_MIB = 8.0
RUNS = 20
#: Before memory is looked at, all that is made once has been made.
_WARM_UP = 40
_REFUSED = 200
#: So many at once: as a queue that is never empty.
_AT_ONCE = 10
#: The states that a run goes through on its way.
_STATES = ("Scheduled", "Pending", "Submitting", "Running")


def measure(cloud: Cloud, directory: Path) -> list[Figure]:
    """The latency's median and 95th percentile, and the growth of the service's processes."""
    served = Served(cloud, directory / "serve.log")
    say("starting the service")
    served.start()
    try:
        return [*_latency(served), _memory(served)]
    finally:
        assert served.stop(signal.SIGTERM) == 0, served.log.read_text()


def _latency(served: Served) -> list[Figure]:
    say(f"{RUNS} builds that are stopped at step 2")
    samples, parts = [], []
    for number in range(RUNS + 1):
        began = datetime.now(UTC)
        request_id = str(uuid.uuid4())
        run = served.create(f"served{number}", fault="2:raise", request_id=request_id)
        served.end_of(run)
        if number == 0:
            continue  # what is done once, at the first run, was done
        samples.append((_step_1(served, request_id) - began).total_seconds())
        at = {state["name"]: _time(str(state["timestamp"])) for state in served.states(run)}
        parts.append([(at[name] - began).total_seconds() for name in _STATES])
    middle = of_samples("POST to step 1 running", samples, "s", TARGET_S)
    at_median = [sorted(column)[len(column) // 2] for column in zip(*parts, strict=True)]
    shown = ", ".join(f"{name} {s:.2f}" for name, s in zip(_STATES, at_median, strict=True))
    middle.notes = [f"median seconds from the POST to the states: {shown}"]
    slow = sorted(samples)[int(len(samples) * 0.95) - 1]
    return [middle, Figure("POST to step 1 running, 95th percentile", slow, "s")]


def _step_1(served: Served, request_id: str) -> datetime:
    """When the build of a request began step 1."""
    store = served.cloud.world.store
    build = store.builds.of_request("vm", settings().credentials, request_id)
    assert build is not None
    started = store.journal.entries(build.id, build.generation)[0].started_at
    assert started is not None
    return started if started.tzinfo else started.replace(tzinfo=UTC)


def _time(iso: str) -> datetime:
    return datetime.fromisoformat(iso.replace("Z", "+00:00"))


def _memory(served: Served) -> Figure:
    say(f"{_REFUSED} runs that are refused")
    _refuse(served, _WARM_UP)
    processes = {"worker": served.pid, "forkserver": served.forkserver}
    before = {name: _anonymous_mib(pid) for name, pid in processes.items()}
    _refuse(served, _REFUSED)
    after = {name: _anonymous_mib(pid) for name, pid in processes.items()}
    growth = {name: after[name] - before[name] for name in processes}
    notes = [f"{name}: {before[name]:.1f} -> {after[name]:.1f} MiB" for name in processes]
    return Figure(
        f"the service's memory after {_REFUSED} runs: growth",
        max(growth.values()),
        "MiB",
        MEMORY_TARGET_MIB,
        list(growth.values()),
        notes,
    )


def _refuse(served: Served, runs: int) -> None:
    for _ in range(runs // _AT_ONCE):
        made = [served.post("delete-vm", parameters={"unknown": 1}) for _ in range(_AT_ONCE)]
        for run in made:
            assert served.end_of(run)["name"] == "Refused"


def _anonymous_mib(pid: int) -> float:
    """What a process has allocated, without files and what it shares."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^RssAnon:\s+(\d+) kB$", status, re.M)
    assert found is not None
    return int(found[1]) / 1024

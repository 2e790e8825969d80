"""Stopping a build from outside: SIGTERM leaves it to be gone on with, Cancel undoes it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.states import Cancelling

from blocks.state import StepState
from tests.cloud import TIMEOUT_S, Cloud
from tests.inventory import differences
from tests.waiting import eventually

pytestmark = pytest.mark.e2e

#: One whose branch runs in a thread, where no signal comes, and one in the main thread.
STEPS = (32, 45)


@contextmanager
def hanging(cloud: Cloud, name: str, step: int) -> Iterator[subprocess.Popen[str]]:
    """`fifty vm create`, when its build has come to this step, and hangs there."""
    words = ("vm", "create", name, "--image", "micro", "--network", "lab")
    with _hanging(cloud, name, step, words) as process:
        yield process


@contextmanager
def _hanging(
    cloud: Cloud, name: str, step: int, words: tuple[str, ...]
) -> Iterator[subprocess.Popen[str]]:
    fifty = str(Path(sys.executable).with_name("fifty"))
    with subprocess.Popen(
        [fifty, *words, "--json"],
        env=cloud.environment(f"{step}:hang:after"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            eventually(lambda: _hangs(cloud, name, step), f"build that hangs at step {step}")
            yield process
        finally:
            process.kill()


def _hangs(cloud: Cloud, name: str, step: int) -> bool:
    """Whether the build is at this step, and nothing else of it goes on."""
    running = [
        entry.step
        for build in cloud.world.store.builds.unfinished()
        for entry in cloud.journal(build).values()
        if build.name == name and entry.state is StepState.RUNNING
    ]
    return running == [step]


def cancel(flow_run_id: str | None) -> None:
    """What the UI's Cancel does."""
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(UUID(flow_run_id), Cancelling())


def state_of(flow_run_id: str | None) -> str:
    """The name of a flow run's state."""
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(UUID(flow_run_id)).state
    return (state.name if state is not None else None) or ""


@pytest.mark.parametrize("step", STEPS)
def test_a_cancelled_build_is_undone(cloud: Cloud, step: int) -> None:
    before = cloud.inventory()
    with hanging(cloud, "unwanted", step) as process:
        flow_run_id = cloud.build("unwanted").flow_run_id
        cancel(flow_run_id)
        said, _log = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1
    assert json.loads(said)["build_state"] == "undone"
    assert state_of(flow_run_id) == "Cancelled"
    assert cloud.json("vm", "show", "unwanted")["status"] == "ERROR"
    assert differences(before, cloud.inventory()) == []


def test_a_delete_stops_the_build_first(cloud: Cloud) -> None:
    before = cloud.inventory()
    with hanging(cloud, "deleted-early", 45) as process:
        assert cloud.json("vm", "delete", "deleted-early")["build_state"] == "deleted"
        process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1
    assert "deleted-early" not in {vm["name"] for vm in cloud.json("vm", "list")}
    assert differences(before, cloud.inventory()) == []


@pytest.mark.parametrize("step", STEPS)
def test_a_terminated_build_stays_as_it_is_and_can_be_resumed(cloud: Cloud, step: int) -> None:
    with hanging(cloud, "later", step) as process:
        process.send_signal(signal.SIGTERM)
        said, _log = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 128 + signal.SIGTERM
    assert json.loads(said)["next"]["resume"] == "fifty vm resume later"
    entries = cloud.journal(cloud.build("later"))
    assert StepState.UNDONE not in {entry.state for entry in entries.values()}
    assert cloud.json("vm", "resume", "later")["status"] == "ACTIVE"
    assert cloud.ssh("later", "hostname").strip() == "later"


def test_a_terminated_network_is_brought_to_its_end_by_reconcile(cloud: Cloud) -> None:
    before = cloud.inventory()
    words = ("network", "create", "halfway", "--cidr", "10.77.33.0/24")
    with _hanging(cloud, "halfway", 3, words) as process:
        process.send_signal(signal.SIGTERM)
        said, log = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in log
    refusal = json.loads(said)
    assert refusal["error"] == "Terminated"
    assert "`fifty reconcile`" in refusal["hint"]
    [ended] = cloud.json("reconcile")["reconciled"]
    assert (ended["name"], ended["state"]) == ("halfway", "complete")
    cloud.fifty("network", "delete", "halfway")
    assert differences(before, cloud.inventory()) == []

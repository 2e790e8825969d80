"""`fifty serve`: runs what the API asks for, stops clean, and gives every run a true end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from deployments import processes
from deployments.service.worker import ASK_EVERY_S
from tests.cloud import Cloud
from tests.inventory import differences
from tests.service.served import Served, ask, children
from tests.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture
def nothing_left(served: Served) -> Iterator[None]:
    """A test after which the host is as it was before."""
    before = served.cloud.inventory()
    yield
    assert differences(before, served.cloud.inventory()) == []


def step_is(served: Served, flow_run_id: str, number: int) -> Callable[[], bool]:
    """Whether a served build is at a step, or was."""

    def look() -> bool:
        store = served.cloud.world.store
        builds = [one for one in store.builds.unfinished() if one.flow_run_id == flow_run_id]
        return any(
            entry.step == number
            for build in builds
            for entry in store.journal.entries(build.id, build.generation)
        )

    return look


@pytest.mark.usefixtures("cloud")
def test_a_posted_request_becomes_active_and_stays_when_the_run_has_ended(served: Served) -> None:
    run = served.create("posted")
    assert served.end_of(run)["name"] == "Completed"
    assert served.cloud.json("vm", "show", "posted")["status"] == "ACTIVE"
    assert served.cloud.ssh("posted", "hostname").strip() == "posted"
    assert served.run(run)["work_queue_name"] == "builds"
    deleted = served.post("delete-vm", {"name": "posted"})
    assert served.end_of(deleted)["name"] == "Completed"
    # Each run had a process of its own, and none of them is left, not even as a zombie.
    eventually(lambda: not children(served.forkserver), "end of all the runs' processes")


def test_a_second_one_is_refused_and_names_the_first(served: Served) -> None:
    refusal = served.cloud.json("serve", code=1)
    assert refusal["error"] == "Conflict"
    assert f"process {served.pid}" in refusal["message"]


def test_status_tells_who_serves_what_runs_and_what_is_to_come(served: Served) -> None:
    run = served.create("watched", fault="9:hang")
    eventually(step_is(served, run, 9), "step 9")
    found = served.cloud.json("serve", "--status")
    assert found["prefect"]["answers"] is True
    assert found["worker"]["pid"] == served.pid
    assert found["builds"] == 4
    [watched] = [one for one in found["running"] if one["id"] == run]
    assert watched["step"] == "09 · Reserve quota"
    [reconcile] = [one for one in found["schedules"] if one["deployment"] == "reconcile/fifty"]
    assert reconcile["active"] is True
    shown = served.cloud.fifty("serve", "--status")
    assert f"process {served.pid}" in shown
    assert "09 · Reserve quota" in shown
    served.cancel(run)
    assert served.end_of(run)["name"] == "Cancelled"


@pytest.mark.usefixtures("nothing_left")
def test_a_cancelled_build_is_rolled_back_and_its_run_ends_cancelled(served: Served) -> None:
    run = served.create("unwanted", fault="45:hang")
    eventually(step_is(served, run, 45), "step 45")
    served.cancel(run)
    state = served.end_of(run)
    names = [one["name"] for one in served.states(run)]
    assert names[-3:] == ["Running", "Cancelling", "Cancelled"]
    assert "Crashed" not in names
    assert state["name"] == "Cancelled"
    tasks = {"flow_runs": {"id": {"any_": [run]}}, "limit": 200}
    undone = eventually(
        lambda: [
            task["name"]
            for task in ask("POST", "/task_runs/filter", json=tasks)
            if task["name"].startswith("undo") and task["state_type"] == "COMPLETED"
        ],
        "undo task runs",
    )
    assert any("44" in name for name in undone)
    assert served.cloud.json("vm", "show", "unwanted")["status"] == "ERROR"
    served.cloud.fifty("vm", "delete", "unwanted")


def test_a_run_that_waits_for_its_turn_is_cancelled_at_once(served: Served) -> None:
    busy = [served.create(f"busy{number}", fault="9:hang") for number in range(4)]
    for run in busy:
        eventually(step_is(served, run, 9), "step 9")
    waiting = served.create("waiting")
    eventually(lambda: served.cloud.json("serve", "--status")["queued"] == 1, "queued run")
    served.cancel(waiting)
    assert served.end_of(waiting)["name"] == "Cancelled"
    assert not {"Pending", "Running"} & {one["name"] for one in served.states(waiting)}
    for run in busy:
        served.cancel(run)
    for run in busy:
        assert served.end_of(run)["name"] == "Cancelled"


def test_parameters_that_the_flow_does_not_take_are_refused_all_at_once(served: Served) -> None:
    run = served.post("create-vm", parameters={"reqest": {"name": "x"}, "force": True})
    state = served.end_of(run)
    assert (state["type"], state["name"]) == ("FAILED", "Refused")
    for word in ("unknown parameter 'reqest'", "unknown parameter 'force'", "missing", "'request'"):
        assert word in state["message"]
    assert "Running" not in {one["name"] for one in served.states(run)}
    wanted = {"artifacts": {"flow_run_id": {"any_": [run]}}}
    [artifact] = ask("POST", "/artifacts/filter", json=wanted)
    assert artifact["type"] == "markdown"
    assert "reqest" in artifact["data"]
    assert "force" in artifact["data"]


def test_a_deployment_that_is_not_of_our_flows_runs_nothing(served: Served) -> None:
    flow = ask("POST", "/flows/", json={"name": "hostile"})
    body = {
        "name": "fifty",
        "flow_id": flow["id"],
        "entrypoint": "os:system",
        "work_pool_name": "fifty",
        "work_queue_name": "default",
    }
    made = ask("POST", "/deployments/", json=body)
    run = ask("POST", f"/deployments/{made['id']}/create_flow_run", json={})["id"]
    state = served.end_of(run)
    assert state["name"] == "Refused"
    assert "os:system" in state["message"]


def test_a_run_that_is_retried_at_once_waits_for_the_end_of_its_last_process(
    served: Served,
) -> None:
    run = served.post("delete-vm", {"name": "nobody"})
    for _ in range(3):
        assert served.end_of(run)["type"] == "FAILED"
        retry_at_once(run)
        # Without a wait, a new process would begin while the last one still ends.
        eventually(lambda: served.run(run)["state"]["type"] != "SCHEDULED", "retried run")
    assert served.end_of(run)["type"] == "FAILED"
    eventually(lambda: not children(served.forkserver), "end of all the runs' processes")

    hung = served.create("overtaken", fault="9:hang")
    eventually(step_is(served, hung, 9), "step 9")
    first = served.process_of(hung)
    ask("POST", f"/flow_runs/{hung}/set_state", json={"state": {"type": "FAILED"}, "force": True})
    retry_at_once(hung)
    time.sleep(2 * ASK_EVERY_S)
    assert served.run(hung)["state"]["name"] == "AwaitingRetry"
    assert children(served.forkserver) == [first]
    os.kill(first, signal.SIGKILL)
    second = eventually(
        lambda: served.process_of(hung) != first and served.process_of(hung), "next process"
    )
    assert served.wait_for(hung, "Running")
    assert processes.identify(int(second)) is not None
    served.cancel(hung)
    assert served.end_of(hung)["name"] == "Cancelled"


def retry_at_once(flow_run_id: str) -> None:
    """What the UI's Retry does."""
    state = {"type": "SCHEDULED", "name": "AwaitingRetry"}
    ask("POST", f"/flow_runs/{flow_run_id}/set_state", json={"state": state})


@pytest.mark.usefixtures("nothing_left")
def test_a_killed_process_is_a_crashed_run_and_its_build_is_brought_to_an_end(
    served: Served,
) -> None:
    run = served.create("struck", fault="30:hang", on_interrupt="rollback")
    eventually(step_is(served, run, 30), "step 30")
    os.kill(served.process_of(run), signal.SIGKILL)
    assert served.end_of(run)["name"] == "Crashed"
    # The scheduled one may be at it: then this one is cancelled.
    again = served.post("reconcile", {})
    assert served.end_of(again)["name"] in ("Completed", "Cancelled")
    eventually(
        lambda: served.cloud.json("vm", "show", "struck")["status"] == "ERROR", "end of struck"
    )
    served.cloud.fifty("vm", "delete", "struck")


@pytest.mark.usefixtures("cloud")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_service_leaves_builds_that_the_next_one_brings_to_an_end(
    served: Served, number: signal.Signals
) -> None:
    name = f"survivor-{number.name.lower()}"
    run = served.create(name, fault="30:hang")
    eventually(step_is(served, run, 30), "step 30")
    child = served.process_of(run)
    assert served.stop(number) == (0 if number == signal.SIGTERM else -number)
    eventually(lambda: processes.identify(child) is None, "end of the run's process")
    assert served.end_of(run)["name"] == "Crashed"
    status = served.cloud.json("serve", "--status", code=3)
    assert status["worker"]["running"] is False
    assert served.cloud.json("vm", "show", name)["status"] == "BUILD"
    served.start()
    eventually(lambda: active(served.cloud, name), f"{name} ACTIVE")


def active(cloud: Cloud, name: str) -> bool:
    """Whether a VM has got there."""
    found = cloud.json("vm", "show", name)
    assert found["status"] in ("BUILD", "ACTIVE"), found
    return bool(found["status"] == "ACTIVE")

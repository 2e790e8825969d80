"""The ends of a build: retried, resumed, rolled back, in need of attention, kept."""

from __future__ import annotations

import signal
from collections import Counter
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import TaskRun

from tests.cloud import Cloud
from tests.inventory import differences
from tests.waiting import eventually

pytestmark = pytest.mark.e2e

CREATE = ("vm", "create", "--image", "micro", "--flavor", "tiny", "--network", "lab")
UNDONE = [9, 10, 17, 19, 21, 23, 25, 27, 29, 30, 31, 32, 33, 34, 35, 36, 37, 39, 40, 42, 44]


def task_runs(flow_run_id: str, *, at_least: int) -> list[TaskRun]:
    """The task runs of a flow run; they reach the API as events, a while after the fact."""

    def read() -> list[TaskRun]:
        with get_client(sync_client=True) as client:
            found: list[TaskRun] = client.read_task_runs(
                flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[UUID(flow_run_id)])),
                limit=200,
            )
        final = [run for run in found if run.state and run.state.is_final()]
        return final if len(final) >= at_least else []

    return eventually(read, "task runs in the API")


def test_a_step_that_fails_once_is_retried_and_the_vm_is_active(cloud: Cloud) -> None:
    document = cloud.json(*CREATE, "flaky", fault="36:flake")
    assert document["status"] == "ACTIVE"
    step = next(s for s in cloud.json("vm", "steps", "flaky") if s["number"] == 36)
    assert (step["state"], step["attempts"]) == ("done", 2)
    runs = task_runs(document["flow_run_id"], at_least=50)
    assert {run.name: run.run_count for run in runs}["36 · Plug the tap device"] == 2
    assert len(runs) == 50


def test_a_killed_build_is_resumed_where_it_stopped(cloud: Cloud) -> None:
    killed = cloud.run(*CREATE, "killed", fault="30:kill:after")
    assert killed.returncode == -signal.SIGKILL
    assert cloud.json("vm", "show", "killed")["status"] == "BUILD"
    build = cloud.build("killed")
    states_before = {s["number"]: s["state"] for s in cloud.json("vm", "steps", "killed")}
    assert states_before[30] == "running"
    assert {states_before[number] for number in range(1, 30)} == {"done"}
    # A branch beside may have been killed between its journal and its checkpoint.
    kept = (cloud.home / "checkpoints").glob(f"{build.id}-*")
    finished = {int(file.name.removeprefix(f"{build.id}-").split("-")[1]) for file in kept}
    assert finished >= set(range(1, 30)) and 30 not in finished

    document = cloud.json("vm", "resume", "killed")
    assert document["status"] == "ACTIVE"
    states = {
        int(run.name[:2]): run.state_name for run in task_runs(document["flow_run_id"], at_least=50)
    }
    assert {number for number, state in states.items() if state == "Cached"} == finished
    assert {number for number, state in states.items() if state == "Completed"} == (
        set(range(1, 51)) - finished
    )
    assert cloud.ssh("killed", "hostname").strip() == "killed"


def test_a_failed_build_is_undone_and_nothing_is_left(cloud: Cloud) -> None:
    before = cloud.inventory()
    refusal = cloud.json(*CREATE, "failing", "--volume", "1", fault="46:raise", code=1)
    assert refusal["error"] == "InjectedFault"
    document = cloud.json("vm", "show", "failing")
    assert document["status"] == "ERROR"
    assert document["fault"]["step"] == 46
    assert differences(before, cloud.inventory()) == []
    runs = task_runs(document["flow_run_id"], at_least=46 + len(UNDONE))
    undone = sorted(int(r.name.split()[1]) for r in runs if r.name.startswith("undo "))
    assert undone == UNDONE


def test_an_undo_that_fails_stops_no_other_and_can_be_repeated(cloud: Cloud) -> None:
    before = cloud.inventory()
    refusal = cloud.json(*CREATE, "stuck", fault="46:raise,u36:raise", code=1)
    assert refusal["error"] == "NeedsAttention"
    document = cloud.json("vm", "show", "stuck")
    assert document["status"] == "NEEDS_ATTENTION"
    states = {s["number"]: s["state"] for s in cloud.json("vm", "steps", "stuck")}
    assert states[36] == "undo_failed"
    assert {states[number] for number in UNDONE if number != 36} == {"undone"}
    left = differences(before, cloud.inventory())
    taps = [line.split()[2] for line in left if line.startswith("links: + tap")]
    assert len(taps) == 1
    assert len(left) == 1
    assert any(taps[0] in line for line in document["fault"]["details"])

    cloud.fifty("vm", "rollback", "stuck")
    assert cloud.json("vm", "show", "stuck")["status"] == "ERROR"
    assert differences(before, cloud.inventory()) == []


def test_a_failure_can_be_kept_for_a_look_and_gone_on_with(cloud: Cloud) -> None:
    cloud.fifty(*CREATE, "kept", "--on-failure", "keep", fault="45:raise", code=1)
    assert cloud.json("vm", "show", "kept")["status"] == "ERROR"
    states = Counter(s["state"] for s in cloud.json("vm", "steps", "kept"))
    assert (states["done"], states["failed"], states["pending"]) == (44, 1, 5)
    assert cloud.json("vm", "resume", "kept")["status"] == "ACTIVE"


def test_the_same_request_id_is_the_same_vm(cloud: Cloud) -> None:
    first = cloud.json(*CREATE, "once", "--request-id", "only-once")
    again = cloud.json(*CREATE, "once", "--request-id", "only-once")
    assert again["id"] == first["id"]
    other = cloud.json(*CREATE, "other", "--request-id", "only-once", code=1)
    assert other["error"] == "Conflict"


def test_a_vm_is_deleted_with_all_that_it_had(cloud: Cloud) -> None:
    before = cloud.inventory()
    cloud.fifty(*CREATE, "brief", "--volume", "1")
    assert differences(before, cloud.inventory()) != []
    cloud.fifty("vm", "delete", "brief")
    assert differences(before, cloud.inventory()) == []
    assert cloud.json("vm", "show", "brief", code=1)["error"] == "NotFound"

"""Every step of the fifty fails, is killed, terminated and cancelled; nothing is ever left.

`MATRIX=all tests/run tests/matrix` runs all of it; without MATRIX it is a third, by the
commit's hash. Each test breaks several builds at the same step, at once; the host's
inventory decides, when all of them have come to their ends. A table is printed at the end.
"""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from blocks.resources import InstanceStatus
from blocks.state import Build, StepState
from tests.inventory import differences
from tests.matrix.cases import STEPS, Case, cases_of, chosen
from tests.matrix.table import Table
from tests.service.served import Served
from tests.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

#: How a build stands of which nothing is left.
GONE = ("undone", "refused")


@pytest.mark.parametrize("step", chosen()[0], ids=lambda step: f"step-{step}")
def test_nothing_is_left_whatever_happens_at_a_step(
    faulty: Served, table: Table, step: int
) -> None:
    began = time.monotonic()
    before = faulty.cloud.inventory()
    cases = cases_of(STEPS[step])
    assert {case.then for case in cases} >= {"resume", "rollback"}
    try:
        with ThreadPoolExecutor(len(cases)) as pool:
            futures = {case: pool.submit(carry_out, faulty, case) for case in cases}
        left = differences(before, faulty.cloud.inventory())
        wrong = {case.vm: future.exception() for case, future in futures.items()}
        for case, future in futures.items():
            if wrong[case.vm] is None and not left:
                table.note(case, future.result())
        assert [vm for vm in wrong if wrong[vm]] == [], wrong
        assert left == []
    finally:
        table.note_time(step, time.monotonic() - began)
        forget(faulty, cases)


def carry_out(served: Served, case: Case) -> str:
    """Break one build, and bring it to its end; the end's name."""
    run = served.post("create-vm", case.request, fault=case.fault)
    if case.what in ("term", "cancel"):
        eventually(lambda: hangs(served, run, case.step), f"{case.vm} that hangs")
        if case.what == "cancel":
            served.cancel(run)
        else:
            os.kill(served.process_of(run), signal.SIGTERM)
    state = served.end_of(run)["name"]
    build = build_of(served, run)
    if case.what in ("raise", "cancel"):
        wanted = ("Cancelled",) if case.what == "cancel" else ("RolledBack", "Refused")
        assert state in wanted, f"{case.vm}: {state}"
        was_undone_because_of(case, build)
    else:
        assert state == "Crashed", f"{case.vm}: {state}"
        stopped_where_it_should(served, case, build)
    return follow_up(served, case, build) if case.then else build.state


def was_undone_because_of(case: Case, build: Build) -> None:
    """The injected fault really was the one: a test of faults can get past without any."""
    assert build.fault is not None, case.vm
    assert build.fault["step"] == case.step, f"{case.vm}: {build.fault}"
    if case.what == "raise":
        message = f"injected fault {case.when} step {case.step}"
        assert (build.fault["error"], build.fault["message"]) == ("InjectedFault", message)
    assert build.state in GONE, f"{case.vm}: {build.state}"


def stopped_where_it_should(served: Served, case: Case, build: Build) -> None:
    """The build stands still in the middle of the step, or of its undo."""
    entry = served.cloud.journal(build)[case.step]
    wanted = {
        "kill": {StepState.RUNNING},
        "term": {StepState.RUNNING, StepState.FAILED},
        "undo": {StepState.UNDOING},
    }[case.what]
    assert entry.state in wanted, f"{case.vm}: {entry.state}"
    stands = "undoing" if case.what == "undo" else "building"
    assert build.state == stands, f"{case.vm}: {build.state}"


def follow_up(served: Served, case: Case, build: Build) -> str:
    """Resume it to ACTIVE and delete it, or roll it back."""
    again = served.end_of(served.post(f"{case.then}-vm", {"name": case.vm}))
    assert again["name"] == "Completed", f"{case.vm}: {case.then}: {again}"
    store = served.cloud.world.store
    if case.then == "rollback":
        stands = store.builds.get(build.id).state
        assert stands in GONE, f"{case.vm}: {stands}"
        return stands
    entry = served.cloud.journal(build)[case.step]
    assert (entry.state, entry.attempts) == (StepState.DONE, 2), f"{case.vm}: {entry}"
    assert store.instances.get(build.id).status is InstanceStatus.ACTIVE
    assert served.cloud.ssh(case.vm, "hostname").strip() == case.vm
    deleted = served.end_of(served.post("delete-vm", {"name": case.vm}))
    assert deleted["name"] == "Completed", f"{case.vm}: delete: {deleted}"
    return "ACTIVE"


def build_of(served: Served, run: str) -> Build:
    """The build that a flow run works on."""
    found = served.cloud.world.store.builds.of_request("vm", "default", run)
    assert found is not None, f"the run {run} has opened no build"
    return found


def hangs(served: Served, run: str, step: int) -> bool:
    """Whether a run's build is at this step, and nothing else of it goes on."""
    build = served.cloud.world.store.builds.of_request("vm", "default", run)
    entries = served.cloud.journal(build).values() if build else ()
    return [entry.step for entry in entries if entry.state is StepState.RUNNING] == [step]


def forget(served: Served, cases: list[Case]) -> None:
    """Forget the records of what was undone, and delete what should not be there any more."""
    store = served.cloud.world.store
    names = {case.vm for case in cases}
    left = []
    for instance in store.instances.list():
        if instance.name not in names:
            continue
        if store.builds.get(instance.id).state in GONE:
            # Nothing is left of it: all that a delete does to it is this, in a second.
            store.instances.set_status(instance.id, InstanceStatus.DELETING)
            store.instances.set_status(instance.id, InstanceStatus.DELETED)
            store.builds.update(instance.id, state="deleted")
        else:
            left.append(instance.id)
    served.cloud.delete(left)

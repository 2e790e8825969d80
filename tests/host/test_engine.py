"""The engine's guarantees, on a catalogue of a few steps, with a real store and Prefect server."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import flow

from blocks.changes import record
from blocks.errors import Conflict, HostFault, InvalidRequest, NotFound, Transient
from blocks.settings import settings
from blocks.state import Build, StateStore, StepState
from tasks.run import Runner, lease
from tasks.step import Catalogue

pytestmark = pytest.mark.host


class Toy:
    """A build whose steps write their numbers into a list."""

    done: list[str]

    def __init__(self, store: StateStore, build: Build) -> None:
        self.store = store
        self.build_id = build.id
        self.generation = build.generation
        self.lease_token: str | None = None
        self.done = []


TOY = Catalogue("toy", Toy)
step = TOY.stage("T")


def undo_one(done: list[str]) -> None:
    """Undo the first step."""
    done.append("u1")


@step(1, "One", undo=undo_one)
def one(done: list[str]) -> str:
    """Do the first step."""
    done.append("1")
    record("made one", "make one")
    return "one"


@step(2, "Two")
def two(done: list[str]) -> None:
    """Fail once, in a way that is worth a retry."""
    done.append("2")
    if done.count("2") == 1:
        raise Transient("not yet")


def undo_three(done: list[str]) -> None:
    """Undo the third step."""
    done.append("u3")


@step(3, "Three", undo=undo_three)
def three(done: list[str]) -> None:
    """Fail for good."""
    done.append("3")
    raise HostFault("broken")


@step(4, "Four")
def four(done: list[str]) -> None:
    """Refuse."""
    raise InvalidRequest("four is wrong")


@step(5, "Five")
def five(done: list[str]) -> None:
    """Refuse, too."""
    raise NotFound("five is not there")


@pytest.fixture
def toy(prefect_server: str, fifty_home: Path, tmp_path: Path) -> Iterator[Toy]:
    """A build of the toy catalogue."""
    del prefect_server
    store = StateStore(tmp_path / "state.db", "h")
    store.initialize()
    build, _new = store.builds.open(
        build_id=str(uuid.uuid4()),
        catalogue="toy",
        name="toy",
        credentials="c",
        request={},
        request_id=str(uuid.uuid4()),
        flow_run_id=None,
        policy="rollback",
    )
    yield Toy(store, build)
    assert settings().home == fifty_home


def carry(toy: Toy, plan: Any) -> Any:  # noqa: ANN401 - whatever the plan gives
    """Run a plan as a flow, under the build's lease."""

    @flow
    def toy_flow() -> Any:  # noqa: ANN401
        with lease(toy, "create") as token:
            toy.lease_token = token
            return plan(Runner(TOY, toy))

    return toy_flow()


def states(toy: Toy) -> dict[int, StepState]:
    """The journal, as states by step."""
    entries = toy.store.journal.entries(toy.build_id, toy.generation)
    return {entry.step: entry.state for entry in entries}


def test_only_a_transient_error_is_tried_again(toy: Toy) -> None:
    carry(toy, lambda run: (run(one), run(two)))
    assert toy.done == ["1", "2", "2"]
    with pytest.raises(HostFault):
        carry(toy, lambda run: run(three))
    assert toy.done.count("3") == 1
    assert states(toy) == {1: "done", 2: "done", 3: "failed"}


def test_what_a_step_changed_is_in_the_journal(toy: Toy) -> None:
    carry(toy, lambda run: run(one))
    entry = toy.store.journal.entry(toy.build_id, 1, 1)
    assert entry is not None
    assert [change.command for change in entry.changes] == ["make one"]


def test_a_finished_step_is_taken_from_its_checkpoint_until_it_is_undone(toy: Toy) -> None:
    assert carry(toy, lambda run: run(one)) == "one"
    assert carry(toy, lambda run: run(one)) == "one"
    assert toy.done == ["1"]
    carry(toy, lambda run: run.unwind())
    carry(toy, lambda run: run(one))
    assert toy.done == ["1", "u1", "1"]


def test_a_torn_checkpoint_is_not_trusted(toy: Toy) -> None:
    carry(toy, lambda run: run(one))
    checkpoint = settings().checkpoints / one.key(toy.build_id, 1, 0)
    checkpoint.write_bytes(checkpoint.read_bytes()[:20])
    assert carry(toy, lambda run: run(one)) == "one"
    assert toy.done == ["1", "1"]


def test_the_failing_step_is_undone_too_and_in_reverse(toy: Toy) -> None:
    def plan(run: Runner) -> list[str]:
        run(one)
        with pytest.raises(HostFault):
            run(three)
        return run.unwind()

    assert carry(toy, plan) == []
    assert toy.done == ["1", "3", "u3", "u1"]
    assert set(states(toy).values()) == {"undone"}


def test_refusals_of_steps_that_look_are_gathered(toy: Toy) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        carry(toy, lambda run: run.gather(four, five))
    assert refusal.value.details == ("four is wrong", "five is not there")


def test_a_branch_that_fails_stops_the_others_and_is_what_is_told(toy: Toy) -> None:
    with pytest.raises(HostFault):
        carry(toy, lambda run: run.concurrently((three,), (one,)))
    assert states(toy)[3] == "failed"


def test_one_run_at_a_time_works_on_a_build(toy: Toy) -> None:
    code = (
        "import sys; from pathlib import Path; from blocks.state import StateStore;"
        "s = StateStore(Path(sys.argv[1]), 'h'); s.leases.acquire(sys.argv[2], 'create');"
        "print('held', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(toy.store.database.path), toy.build_id],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(Conflict):
            carry(toy, lambda run: run(one))
        other.kill()
    assert toy.done == []
    carry(toy, lambda run: run(one))
    assert toy.done == ["1"]

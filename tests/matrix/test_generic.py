"""The three tests that hold for every step of every catalogue, whatever it does.

Done twice it has the effect of once; where it fails nothing is left; its undo succeeds
twice. For the fifty the second is the matrix itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from blocks.state import Build, StateStore, StepState
from flows.plans import PLANS
from tests.inventory import differences
from tests.matrix.examples import EXAMPLES, OF_WHAT_IS_THERE, Example, outside_of, shape
from tests.service.served import Served

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

KINDS = pytest.mark.parametrize("kind", sorted(set(PLANS) - OF_WHAT_IS_THERE))


@contextmanager
def nothing_left(served: Served, example: Example, *names: str) -> Iterator[None]:
    """See to it that what was built is gone, and nothing of it left; on failure too."""
    before = served.cloud.inventory()
    try:
        yield
        if example.makes_router:
            delete_routers(served, names)
        assert differences(before, served.cloud.inventory()) == []
    except BaseException:
        for name in names:
            served.end_of(served.post(example.delete, {"name": name}))
        if example.makes_router:
            delete_routers(served, names)
        raise


def delete_routers(served: Served, names: tuple[str, ...]) -> None:
    """Delete the routers and external networks that were made with networks of these names.

    Whoever made a router's first network does not own it.
    """
    store = served.cloud.world.store
    for router in store.routers.list():
        if router.name in names:
            served.cloud.fifty("router", "delete", router.id)
    for network in store.networks.list():
        if network.name in map(outside_of, names):
            served.cloud.fifty("network", "delete", network.id)


def build_of(served: Served, example: Example, run: str) -> Build:
    """The build that a flow run has opened."""
    found = served.cloud.world.store.builds.of_request(example.kind, "default", run)
    assert found is not None
    return found


def create(served: Served, example: Example, name: str) -> Build:
    """Build it, without any fault."""
    run = served.post(example.create, example.request(name))
    ended = served.end_of(run)
    assert ended["name"] == "Completed", ended
    return build_of(served, example, run)


def create_twice(served: Served, example: Example, name: str) -> Build:
    """Build it, with every step done twice: once more after it has had its effect.

    A step that is retried fails once in a way that is worth it. For one that is not, the
    run is killed, and another one goes on.
    """
    flakes = [f"{step.number}:flake:after" for step in example.steps if step.retries]
    kills = [f"{step.number}:kill:after" for step in example.steps if not step.retries]
    run = served.post(example.create, example.request(name), fault=",".join(flakes + kills[:1]))
    state = served.end_of(run)
    build = build_of(served, example, run)
    for turn in range(len(kills)):
        assert state["name"] == "Crashed", state
        faults = ",".join(flakes + kills[turn + 1 : turn + 2])
        again = served.post("finish-build", {"id": build.id, "name": name}, fault=faults)
        state = served.end_of(again)
    assert state["name"] == "Completed", state
    return build


def attempts(store: StateStore, build: Build) -> dict[int, int]:
    """How often each step was begun."""
    entries = store.journal.entries(build.id, build.generation)
    assert {entry.state for entry in entries} == {StepState.DONE}
    return {entry.step: entry.attempts for entry in entries}


def undo_faults(example: Example) -> str:
    """Have every undo fail once, after it has had its effect."""
    return ",".join(f"u{step.number}:flake:after" for step in example.steps if step.undo)


def assert_undone_twice(store: StateStore, example: Example, build: Build) -> None:
    """Every undo has failed after its effect, and then succeeded."""
    entries = {entry.step: entry for entry in store.journal.entries(build.id, build.generation)}
    for step in example.steps:
        if step.undo is None:
            continue
        entry = entries[step.number]
        said = (entry.error or {}).get("message")
        assert entry.state is StepState.UNDONE, entry
        assert said == f"injected transient fault after step u{step.number}", entry


@KINDS
def test_every_step_done_twice_has_the_effect_of_once_and_so_has_its_undo(
    faulty: Served, kind: str
) -> None:
    example, store = EXAMPLES[kind], faulty.cloud.world.store
    with nothing_left(faulty, example, "once", "twice"):
        before = faulty.cloud.inventory()
        build = create(faulty, example, "once")
        once = shape(differences(before, faulty.cloud.inventory()), "once")
        assert set(attempts(store, build).values()) == {1}
        ended = faulty.end_of(faulty.post(example.delete, {"name": "once"}))
        assert ended["name"] == "Completed", ended
        if example.makes_router:
            delete_routers(faulty, ("once",))

        build = create_twice(faulty, example, "twice")
        found = attempts(store, build)
        assert list(found) == [step.number for step in example.steps]
        assert min(found.values()) == 2, found
        twice = shape(differences(before, faulty.cloud.inventory()), "twice")
        assert (once - twice, twice - once) == (Counter(), Counter())
        assert once

        run = faulty.post(example.delete, {"name": "twice"}, fault=undo_faults(example))
        ended = faulty.end_of(run)
        assert ended["name"] == "Completed", ended
        assert_undone_twice(store, example, build)


@KINDS
def test_every_undo_of_a_build_that_failed_succeeds_twice(faulty: Served, kind: str) -> None:
    example = EXAMPLES[kind]
    last = max(step.number for step in example.steps if step.undo)
    with nothing_left(faulty, example, "undone-twice"):
        fault = f"{last}:raise:after,{undo_faults(example)}"
        run = faulty.post(example.create, example.request("undone-twice"), fault=fault)
        ended = faulty.end_of(run)
        assert ended["name"] == "RolledBack", ended
        assert_undone_twice(faulty.cloud.world.store, example, build_of(faulty, example, run))


@pytest.mark.parametrize("kind", sorted(set(PLANS) - OF_WHAT_IS_THERE - {"vm"}))
def test_a_failure_at_every_step_leaves_nothing(faulty: Served, kind: str) -> None:
    example = EXAMPLES[kind]
    places = [(step.number, when) for step in example.steps for when in ("before", "after")]
    names = tuple(f"fails-{number}-{when}" for number, when in places)

    def fails(place: tuple[int, str], name: str) -> None:
        number, when = place
        fault = f"{number}:raise:{when}"
        run = faulty.post(example.create, example.request(name), fault=fault)
        assert faulty.end_of(run)["name"] in ("RolledBack", "Refused")
        build = build_of(faulty, example, run)
        assert build.fault is not None
        assert build.fault["message"] == f"injected fault {when} step {number}"
        assert build.fault["step"] == number

    with nothing_left(faulty, example, *names), ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(fails, places, names))

"""Finding the builds that stopped, and bringing each to one of its ends.

What decides is the state store: a build that is not at an end, and whose lease no living
process holds, has stopped. Prefect's task runs are never asked: their states lag behind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from prefect import get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import BaseModel

from blocks.errors import FiftyError
from blocks.resources import BuildReference, ReconcileRequest
from blocks.settings import settings
from blocks.state import Build, StateStore
from blocks.state.tables.base import now
from blocks.world import open_world
from tasks.ends import Kind
from tasks.run import Plan
from tasks.session import finish, refused
from tasks.upkeep import asked

FINISHER = "finish-build/fifty"
#: So long a dispatched run has until another one is made for the same stop.
_DISPATCH_EVERY_S = 600

#: Between a build's record and its lease there is a moment: a build so young has not stopped.
_JUST_ACCEPTED = timedelta(seconds=30)

#: How a build stands that could not be brought to one of its good ends.
_NO_END = ("building", "undoing", "deleting", "needs_attention")

Finisher = Callable[[dict[str, str]], State[Any]]


def stopped_builds(store: StateStore) -> list[Build]:
    """The builds that are not at an end, and that no living process works on.

    The leases of dead processes are forgotten: also those of builds that are at their end.
    """
    store.leases.forget_dead()
    return [
        build
        for build in store.builds.unfinished()
        if store.leases.held(build.id) is None and not _just_accepted(store, build)
    ]


def _just_accepted(store: StateStore, build: Build) -> bool:
    begun = store.journal.entries(build.id, build.generation)
    return not begun and now() - build.accepted_at < _JUST_ACCEPTED


def finish_stopped(
    plans: Mapping[str, tuple[Kind, Plan]], request: BaseModel | Mapping[str, Any]
) -> State[Any]:
    """Bring one build to an end.

    Args:
        plans: Each kind of thing, with the plan of its steps, by its catalogue's name.
        request: As the flow got it: not validated.

    Returns:
        As the flow that would have ended it returns; Completed where somebody else works on it.
    """
    try:
        reference = asked(BuildReference, request)
        world = open_world(settings())
        build = world.store.builds.get(str(reference.id))
        purpose = world.store.leases.held(build.id)
        if purpose is not None:
            return Completed(message=f"another run ({purpose}) is working on {build.name}")
        kind, plan = plans[build.catalogue]
        return finish(kind, world, build, plan)
    except FiftyError as error:
        return refused(error)


def reconcile_all(request: BaseModel | Mapping[str, Any], finisher: Finisher) -> State[Any]:
    """Bring every build that stopped to an end, or have it brought there.

    Args:
        request: As the flow got it: not validated.
        finisher: The flow that brings one build to its end, for a reconcile that does it here.

    Returns:
        Completed, or Failed where a build could not be brought to an end.
    """
    try:
        wanted = asked(ReconcileRequest, request)
        store = open_world(settings()).store
    except FiftyError as error:
        return refused(error)
    rows = []
    for build in stopped_builds(store):
        get_run_logger().info(
            "%s %s had stopped while %s", build.catalogue, build.name, build.state
        )
        done = _dispatch(build) if wanted.dispatch else _ended(build, finisher, store)
        rows.append(
            {"kind": build.catalogue, "name": build.name, "stopped while": build.state, **done}
        )
    if not rows:
        return Completed(message="no build had stopped")
    create_table_artifact(
        key="reconcile", table=rows, description=f"{len(rows)} build(s) had stopped"
    )
    left = [row["name"] for row in rows if row["now"] in _NO_END]
    if left:
        return Failed(name="NeedsAttention", message=f"not at an end: {', '.join(left)}")
    words = ", ".join(f"{row['name']} is {row['now']}" for row in rows)
    return Completed(message=words)


def _ended(build: Build, finisher: Finisher, store: StateStore) -> dict[str, Any]:
    state = finisher({"id": build.id, "name": build.name})
    return {"now": store.builds.get(build.id).state, "said": state.message or state.name}


def _dispatch(build: Build) -> dict[str, Any]:
    """Have a run of its own finish a build; while it waits for its turn, no second one."""
    turn = int(now().timestamp()) // _DISPATCH_EVERY_S
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(FINISHER)
        run = client.create_flow_run_from_deployment(
            deployment.id,
            parameters={"request": {"id": build.id, "name": build.name}},
            idempotency_key=f"finish-{build.id}-{build.updated_at.isoformat()}-{turn}",
        )
    return {"now": "handed over", "said": str(run.id)}

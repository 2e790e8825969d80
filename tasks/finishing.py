"""Bringing a build that nobody works on any more to one of its ends."""

from __future__ import annotations

from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Completed

from blocks.errors import Conflict, FiftyError
from blocks.state import Build
from blocks.world import World
from tasks.cancelling import was_cancelled
from tasks.ends import Kind
from tasks.restoring import Restoration, restore
from tasks.run import Plan
from tasks.session import delete_build, next_generation, refused, undo_build, work


def finish(
    kind: Kind, world: World, build: Build, plan: Plan, again: Restoration | None
) -> State[Any]:
    """Bring a build that nobody works on any more to an end, whoever asked for it.

    What was being undone or deleted is undone or deleted to its end; what was being built
    is gone on with, or undone where its request's `on_interrupt` says so or its run was
    cancelled. What was being built before the host was rebooted is built anew: bridges,
    taps and processes are gone. What was complete, and is lost to this host, is restored.
    """
    try:
        if again and (build.state == "restoring" or again.why_lost(kind, world, build)):
            return restore(kind, world, build, again, "reconcile")
        return _finish_build(kind, world, build, plan)
    except Conflict as error:
        now = world.store.builds.get(build.id)
        if now.state == build.state and world.store.leases.held(build.id) is None:
            return refused(error)
        return Completed(message=f"another run has worked on {build.name}: it is {now.state}")
    except FiftyError as error:
        return refused(error)


def _finish_build(kind: Kind, world: World, build: Build, plan: Plan) -> State[Any]:
    """Undo a build, or go on with it, or both where the host was rebooted in between."""
    if build.state == "deleting":
        return delete_build(kind, world, build)
    if build.state not in ("building", "undoing"):
        return Completed(message=f"{build.name} is {build.state}: there is nothing to do")
    undo_it = (
        build.state == "undoing"
        or build.request.get("on_interrupt") == "rollback"
        or was_cancelled(build.flow_run_id)
    )
    if undo_it or world.store.journal.rebooted(build.id, build.generation):
        state = undo_build(kind, world, build, "reconcile")
        if undo_it or not state.is_completed():
            return state
        build = next_generation(world, build)
    return work(kind, world, build, plan, "reconcile")

"""Working on a build: under its lease, and only while it is what it was taken for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prefect.context import FlowRunContext

from blocks.errors import Conflict
from blocks.state import Build
from blocks.world import World
from tasks.ends import Buildable, Kind
from tasks.run import lease
from tasks.summary import Progress


def flow_run_id() -> str | None:
    """The id of the flow run that we are in."""
    context = FlowRunContext.get()
    return str(context.flow_run.id) if context and context.flow_run else None


@contextmanager
def at_work(
    kind: Kind, world: World, build: Build, purpose: str, token: str | None = None
) -> Iterator[Buildable]:
    """Hold a build's lease, and keep its run's progress told.

    Args:
        kind: What is built.
        world: The connections of this host.
        build: The build as it was when it was decided to work on it.
        purpose: What for, in a word.
        token: The lease's, where the caller has taken it already.

    Raises:
        Conflict: Another run holds the lease; or one has held it since, and the build is
            no more what it was.
    """
    subject = kind.subject(world, build)
    store = world.store
    with lease(subject, purpose, token) as held:
        subject.lease_token = held
        now = store.builds.get(build.id)
        if (now.state, now.generation) != (build.state, build.generation):
            raise Conflict(
                f"another run has worked on {build.name} meanwhile: it is {now.state}",
                hint=f"look at it (`fifty {kind.word} show {build.name}`), then decide again",
            )
        with Progress(kind.catalogue, store, build.id):
            yield subject

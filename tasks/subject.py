"""What the builds of all kinds of things have in common for their steps."""

from __future__ import annotations

from typing import Any

from blocks.errors import NotFound
from blocks.fabric import NetworkFabric
from blocks.images import ImageStore
from blocks.state import Build, Caller, StateStore
from blocks.world import World
from tasks.reading import read_once


class BuildSubject:
    """One build of one thing, whose id is the build's.

    Args:
        world: The connections of this host.
        build: The recorded build.
    """

    def __init__(self, world: World, build: Build) -> None:
        self._world = world
        self._build_id = build.id
        self._generation = build.generation
        self.lease_token: str | None = None

    @property
    def world(self) -> World:
        """The connections of this host."""
        return self._world

    @property
    def build_id(self) -> str:
        """The build's id."""
        return self._build_id

    @property
    def generation(self) -> int:
        """The build's generation."""
        return self._generation

    @property
    def store(self) -> StateStore:
        """The state store."""
        return self.world.store

    @property
    def fabric(self) -> NetworkFabric:
        """This host's networking."""
        return self.world.fabric

    @property
    def images(self) -> ImageStore:
        """The image files."""
        return self.world.images

    @read_once
    def build(self) -> Build:
        """The build as recorded, with what the steps so far found and chose."""
        return self.store.builds.get(self.build_id)

    @property
    def plan(self) -> dict[str, Any]:
        """What the steps so far found and chose."""
        return self.build.plan

    @property
    def form(self) -> dict[str, Any]:
        """The request as it came, not yet validated."""
        return self.build.request

    @read_once
    def caller(self) -> Caller:
        """Who asked (from step 1 on)."""
        known = self.plan.get("caller")
        if known is None:
            raise NotFound("the caller of this build is not known yet")
        return Caller(**known)

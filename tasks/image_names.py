"""The names of images: whose they are, and whether one is free."""

from __future__ import annotations

from blocks.resources import Image
from blocks.resources.image import FIRST_VERSION
from blocks.state import Build, Caller, StateStore


def named(
    build: Build, store: StateStore, caller: Caller, name: str, version: str = FIRST_VERSION
) -> list[Image]:
    """The caller's own images of a name and version, besides the one that is being built."""
    return [
        image
        for image in store.images.list(caller.tenant_id)
        if image.tenant_id == caller.tenant_id
        and (image.name, image.version) == (name, version)
        and image.id != build.id
    ]

"""The names of images: whose they are, and whether one is free."""

from __future__ import annotations

from dataclasses import asdict

from blocks.resources import Image
from blocks.resources.image import FIRST_VERSION
from blocks.state import Build, Caller, StateStore
from tasks.access import identify
from tasks.policy import check_policy


def admitted(build: Build, store: StateStore, action: str) -> Caller:
    """Who asks for an image, recorded with its build.

    Raises:
        Denied: They are not known, or may not.
    """
    caller = identify(store, build.credentials)
    store.builds.note(build.id, caller=asdict(caller))
    store.builds.update(build.id, tenant_id=caller.tenant_id)
    check_policy(caller, action)
    return caller


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

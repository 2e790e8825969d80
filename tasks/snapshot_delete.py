"""Deleting a VM's snapshot: the steps that took it are undone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect.client.schemas.objects import State
from pydantic import BaseModel

from blocks.errors import FiftyError
from blocks.resources import SnapshotReference
from blocks.settings import settings
from blocks.world import open_world
from tasks.access import identify
from tasks.complete_vm import find_complete
from tasks.policy import check_policy
from tasks.session import delete_build, refused
from tasks.snapshot_take import SNAPSHOT_KIND
from tasks.upkeep import asked


def delete(request: BaseModel | Mapping[str, Any]) -> State[Any]:
    """Delete a snapshot; what was written since stays.

    Args:
        request: As the flow got it: not validated.

    Returns:
        Completed, or Failed with the name Refused or NeedsAttention.
    """
    try:
        wanted = asked(SnapshotReference, request)
        world = open_world(settings())
        caller = identify(world.store, wanted.credentials)
        check_policy(caller, "snapshot:delete")
        vm = find_complete(world.store, caller, wanted.vm, wanted.credentials)
        snapshot = world.store.snapshots.find(vm.id, wanted.name)
        build = world.store.builds.get(snapshot.id)
        return delete_build(SNAPSHOT_KIND, world, build)
    except FiftyError as error:
        return refused(error)

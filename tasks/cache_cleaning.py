"""Removing what nobody needs any more: bases, replaced images, checkpoints, old runs."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from prefect.artifacts import create_table_artifact
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import TERMINAL_STATES, State
from prefect.states import Completed
from pydantic import BaseModel

from blocks.errors import FiftyError
from blocks.images.cache import Idle, Needed
from blocks.images.files import size_on_disk
from blocks.resources import CleanRequest, DiskMode, Instance
from blocks.settings import settings
from blocks.state import StateStore
from blocks.state.tables.base import now
from blocks.world import World, open_world
from tasks.session import refused
from tasks.upkeep import asked, in_words

#: The tag of the scheduled flows' runs (see `deployments.served_flows`).
UPKEEP_TAG = "upkeep"
#: So many Prefect's server deletes with one call, at most.
_AT_ONCE = 50
_DAY_S = 24 * 3600
_GIB = 1024**3


def clean(request: BaseModel | Mapping[str, Any] | None) -> State[Any]:
    """Remove all of it, and tell what that freed.

    Args:
        request: As the flow got it: not validated.
    """
    try:
        wanted = asked(CleanRequest, request)
        world = open_world(settings())
    except FiftyError as error:
        return refused(error)
    # Images first: what a replaced one leaves in the cache is nobody's then.
    images = remove_replaced_images(world)
    idle = Idle(older_than_s=wanted.bases_days * _DAY_S, most_bytes=wanted.bases_gib * _GIB)
    bases = world.images.remove_other_bases(lambda: needed_bases(world.store), idle)
    long_ago = now() - timedelta(days=wanted.checkpoints_days)
    checkpoints = remove_checkpoints(world.store, settings().checkpoints, long_ago)
    runs = delete_runs(now() - timedelta(days=wanted.runs_days))
    removed = {
        "replaced images": images,
        "bases in this host's cache": bases,
        "checkpoints": checkpoints,
    }
    freed = sum(sum(sizes.values()) for sizes in removed.values())
    rows: list[dict[str, Any]] = [
        {"what": what, "removed": len(sizes), "bytes freed": sum(sizes.values())}
        for what, sizes in removed.items()
    ]
    rows.append({"what": "runs of the scheduled upkeep", "removed": runs, "bytes freed": None})
    words = f"{in_words(freed)} freed"
    create_table_artifact(key="clean-cache", table=rows, description=words)
    return Completed(message=f"{words}; {runs} old run(s) deleted")


def remove_replaced_images(world: World) -> dict[str, int]:
    """Remove the images that another one replaced, and that no VM is made from any more.

    Returns:
        The bytes that each one's file freed, by name.
    """
    freed = {}
    for image in world.store.images.list(None):
        # The record goes first, and only if nothing uses it: what a kill leaves then is a
        # file without a record, which the audit finds.
        if world.store.images.forget_unused(image.id):
            freed[image.name] = size_on_disk(Path(image.path))
            world.images.remove_image(image.id)
    return freed


def needed_bases(store: StateStore) -> Needed:
    """The checksums of images that VMs' disks are based on, and of active ones."""
    used = {one.image_id for one in store.instances.list() if _needs_base(store, one)}
    images = store.images.list(None)
    return Needed(
        used=frozenset(image.sha256 for image in images if image.id in used),
        offered=frozenset(image.sha256 for image in images if image.status == "active"),
    )


def _needs_base(store: StateStore, instance: Instance) -> bool:
    """Whether a VM's disk is, or may become, an overlay on its image's base.

    A full copy needs it until it is made; a build that stopped before may be gone on with.
    """
    if instance.flavor.disk_mode is DiskMode.CHAINED:
        return True
    return store.builds.get(instance.id).state != "complete"


def remove_checkpoints(store: StateStore, directory: Path, before: datetime) -> dict[str, int]:
    """Remove the steps' results of builds that were over before; others may be gone on with.

    Returns:
        The bytes that each file freed.
    """
    over = store.builds.over_since(before)
    freed = {}
    for file in directory.glob("*"):
        if _build_of(file) in over:
            freed[file.name] = size_on_disk(file)
            file.unlink(missing_ok=True)
    return freed


def _build_of(checkpoint: Path) -> str | None:
    """The build that a checkpoint's name begins with (see `tasks.step.checkpoint_key`)."""
    try:
        return str(uuid.UUID(checkpoint.name[:36]))
    except ValueError:
        return None


def delete_runs(before: datetime) -> int:
    """Delete the scheduled upkeep's runs that ended before: one a minute adds up.

    Other runs are deleted by Prefect's own vacuum, later (`deployments.prefect_environment`).

    Returns:
        How many.
    """
    old = FlowRunFilter(
        tags=FlowRunFilterTags(all_=[UPKEEP_TAG]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(TERMINAL_STATES))),
        end_time=FlowRunFilterEndTime(before_=before),
    )
    deleted = 0
    with get_client(sync_client=True) as client:
        while count := _delete_some(client, old):
            deleted += count
    return deleted


def _delete_some(client: SyncPrefectClient, which: FlowRunFilter) -> int:
    document = {"flow_runs": which.model_dump(mode="json"), "limit": _AT_ONCE}
    # The client's list of the server's paths lacks this one.
    path: Any = "/flow_runs/bulk_delete"
    response = client.request("POST", path, json=document)
    return len(response.json()["deleted"])

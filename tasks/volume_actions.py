"""The changes to the volumes of a VM that is there, each a Prefect task that can be repeated."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from blocks.resources import VolumeRequest
from blocks.state import Caller
from blocks.world import World
from tasks.at_work import at_work, flow_run_id
from tasks.complete_vm import find_complete
from tasks.one_change import Changes
from tasks.vm_session import VM_KIND
from tasks.volume_change import attach_volume, detach_volume, find_volume


def wrong(request: VolumeRequest) -> Sequence[str]:
    """What of a volume request does not go together, a line each."""
    lines = []
    if request.action == "attach":
        if (request.size_gib is None) == (request.volume is None):
            lines.append(
                "attach needs size_gib, for a new volume, or volume, for one that is there"
            )
        if request.delete:
            lines.append("delete: attach takes none")
    else:
        if request.volume is None:
            lines.append("volume: detach needs it")
        if request.size_gib is not None or request.id is not None:
            lines.append("size_gib, id: detach takes none")
    return lines


def _attach(world: World, caller: Caller, request: VolumeRequest) -> str:
    build = find_complete(world.store, caller, request.name, request.credentials)
    if request.volume is not None:
        known = find_volume(world.store, build, request.volume)
        volume_id, size = known.id, known.size_gib
    else:
        # The same run again, and the same id again, is the same volume.
        run = uuid.UUID(flow_run_id() or str(uuid.uuid4()))
        volume_id, size = str(request.id or uuid.uuid5(run, "volume")), request.size_gib or 0
    with at_work(VM_KIND, world, build, "attach"):
        volume = attach_volume(world, build, volume_id, size)
    return f"{build.name} has the volume {volume.id} as {volume.device}"


def _detach(world: World, caller: Caller, request: VolumeRequest) -> str:
    build = find_complete(world.store, caller, request.name, request.credentials)
    volume = find_volume(world.store, build, request.volume or "")
    with at_work(VM_KIND, world, build, "detach"):
        detach_volume(world, build, volume.id, delete=request.delete)
    return f"the volume {volume.id} is {'deleted' if request.delete else 'detached'}"


VOLUME_CHANGES = Changes(
    "volume",
    VolumeRequest,
    "volume:change",
    wrong,
    {"attach": _attach, "detach": _detach},
    drawn=False,
)

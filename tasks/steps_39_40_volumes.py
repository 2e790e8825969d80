"""Steps 39 and 40, the volumes: made, and connected to this host."""

from __future__ import annotations

from typing import Any

from blocks.resources import Volume
from blocks.state import StateStore
from blocks.volumes import VolumePool
from tasks.vm_build import VM

step = VM.stage("V")


def delete_volumes(volumes: list[Volume], pool: VolumePool, store: StateStore) -> None:
    """Delete the volumes' files."""
    for volume in volumes:
        pool.delete(volume)


@step(39, "Create the volumes", undo=delete_volumes)
def create_volumes(volumes: list[Volume], pool: VolumePool) -> list[str]:
    """Make each volume: a sparse qcow2 file of its size.

    Here Nova asks Cinder and waits for `available`
    (`nova.virt.block_device.DriverVolumeBlockDevice`).
    """
    for volume in volumes:
        pool.create(volume)
    return [str(pool.path_of(volume)) for volume in volumes]


def disconnect_volumes(volumes: list[Volume], pool: VolumePool, store: StateStore) -> None:
    """Disconnect the volumes from this host."""
    for volume in volumes:
        pool.disconnect(volume)
        store.volumes.set_attached(volume.id, attached=False)


@step(40, "Connect the volumes", undo=disconnect_volumes)
def connect_volumes(
    volumes: list[Volume], pool: VolumePool, store: StateStore
) -> list[dict[str, Any]]:
    """Check that each volume is what was recorded and nobody else's, and attach it.

    Here os-brick connects it to the host (`os_brick.initiator.connectors`).
    """
    attachments = []
    for volume in volumes:
        if not volume.plugged:
            continue
        attachments.append(pool.connect(volume).model_dump(mode="json"))
        store.volumes.set_attached(volume.id, attached=True)
    return attachments

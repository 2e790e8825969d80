"""Volumes plugged into, and unplugged from, a VM that is complete: hot-plug.

As Nova's `attach_volume` and `detach_volume` (`nova.compute.manager`). A volume is its VM's
here, plugged in or not, and goes with it. It is recorded before anything is made and forgotten
after all is gone, so that whoever is stopped in between can do the same again, or the VM's
deletion, which deletes all of its volumes.

Both are called under the VM's lease.
"""

from __future__ import annotations

from blocks.changes import record
from blocks.errors import Conflict, FiftyError, NotFound, Unsupported
from blocks.hypervisor import volume_disk
from blocks.hypervisor.wishes import wishes_of
from blocks.resources import Volume
from blocks.state import Build, StateStore
from blocks.world import World
from tasks.device_notes import note_devices


def find_volume(store: StateStore, build: Build, name: str) -> Volume:
    """A VM's volume by its id, or by the guest's name for it.

    Raises:
        NotFound: The VM has none such.
    """
    for volume in store.volumes.of(build.id):
        if name in (volume.id, volume.device) and name:
            return volume
    raise NotFound(
        f"{build.name} has no volume {name!r}",
        hint=f"`fifty vm show {build.name}` tells its volumes",
    )


def attach_volume(world: World, build: Build, volume_id: str, size_gib: int) -> Volume:
    """Plug a volume into a VM; it is made where there is none of this id.

    Args:
        world: The connections of the VM's host.
        build: The VM's build, complete.
        volume_id: The volume's id, the same for the same request.
        size_gib: Its size.

    Returns:
        The volume, with the guest's name for it.

    Raises:
        FiftyError: What kept it; what was new is removed again, what was detached stays so.
    """
    _require_plugs(world, build)
    store = world.store
    before = {volume.id: volume for volume in store.volumes.of(build.id)}
    try:
        volume = _record(world, build, volume_id, size_gib)
        world.pool.create(volume)
        world.pool.connect(volume)
        world.hypervisor.attach_disk(build.id, volume_disk(volume))
        store.volumes.set_attached(volume.id, attached=True)
    except FiftyError:
        if volume_id not in before:
            detach_volume(world, build, volume_id, delete=True)
        elif not before[volume_id].plugged:
            detach_volume(world, build, volume_id, delete=False)
        raise
    note_devices(world, build)
    return volume


def detach_volume(world: World, build: Build, volume_id: str, *, delete: bool) -> None:
    """Unplug a volume from a VM, which keeps it for later; already unplugged is fine.

    Args:
        world: The connections of the VM's host.
        build: The VM's build, complete.
        volume_id: The volume.
        delete: Also delete it, with all that is on it.

    Raises:
        Conflict: It is no volume of this VM.
        Transient: The guest does not let go of it; the volume stays until it does.
        Unsupported: Its disks are SATA's.
    """
    _require_plugs(world, build)
    store = world.store
    volume = next((one for one in store.volumes.list() if one.id == volume_id), None)
    if volume is not None:
        if volume.instance_id != build.id:
            raise Conflict(f"the volume {volume_id} is not one of {build.name}")
        if volume.plugged and volume.path is not None:
            world.hypervisor.detach_disk(build.id, volume_disk(volume))
        world.pool.disconnect(volume)
        store.volumes.set_attached(volume.id, attached=False)
        store.volumes.set_device(volume.id, plugged=False)
        if delete:
            world.pool.delete(volume)
            store.volumes.remove(volume.id)
            record(f"Forgot the volume {volume.id}", f"openstack volume delete {volume.id}")
    note_devices(world, build)


def _require_plugs(world: World, build: Build) -> None:
    """Check that disks can be plugged in and out: QEMU's SATA controller takes none later.

    Raises:
        Unsupported: They cannot.
    """
    image = world.store.images.get(world.store.instances.get(build.id).image_id)
    if wishes_of(image).disk_bus == "sata":
        raise Unsupported(
            f"the disks of {build.name} are SATA's, which stay as they are",
            hint="name its volumes when it is created, or give its image virtio's drivers",
        )


def _record(world: World, build: Build, volume_id: str, size_gib: int) -> Volume:
    """Record the volume whole: quota, host's disk, file, and that it is to be plugged in."""
    store = world.store
    instance = store.instances.get(build.id)
    others = [volume for volume in store.volumes.of(build.id) if volume.id != volume_id]
    store.quota.resize(instance.tenant_id, build.id, "volumes", len(others) + 1)
    gigabytes = sum(volume.size_gib for volume in others) + size_gib
    store.quota.resize(instance.tenant_id, build.id, "gigabytes", gigabytes)
    # As steps 13 and 17 count it.
    store.hosts.resize(build.id, instance.flavor.disk_gib + gigabytes)
    volume = store.volumes.add(instance, volume_id, size_gib)
    if volume.path is None:
        store.volumes.set_path(volume_id, str(world.pool.path_of(volume)))
        record(
            f"Recorded the volume {volume_id}, {size_gib} GiB",
            f"openstack volume create --size {size_gib} {volume_id}",
        )
    return store.volumes.set_device(volume_id, plugged=True)

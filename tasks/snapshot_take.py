"""A snapshot of a VM: its steps, whose undo is also its deletion.

Nova's snapshots are images; these stay with the VM, as libvirt's do. Of the disks the root
disk alone is a part of one, as in Nova: volumes have snapshots of their own in Cinder.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from blocks.errors import Conflict, NotFound, Unsupported
from blocks.hypervisor import disk_layers
from blocks.resources import Snapshot, SnapshotRequest
from blocks.state import Build, StateStore
from blocks.state.tables.base import now
from blocks.world import World
from tasks.complete_vm import require_complete
from tasks.ends import Kind
from tasks.snapshot_subject import (
    SnapshotSubject,
    note_layer,
    plugged_volumes,
    read_request,
    require_settled,
)
from tasks.step import Catalogue


class SnapshotBuild(SnapshotSubject):
    """One snapshot, whose id is the build's."""

    def settle(self, state: str, fault: dict[str, Any] | None) -> str:
        """Say how the build stands (see `Buildable`).

        Raises:
            Conflict: It is to be deleted, and cannot be now.
        """
        del fault
        if state == "deleting" and not self.is_gone:
            _begin_deletion(self)
        return f"the snapshot {self.build.name} is {state}"

    @property
    def subject(self) -> SnapshotBuild:
        """The build itself."""
        return self

    @cached_property
    def request(self) -> SnapshotRequest:
        """The request, valid (from step 2 on)."""
        return SnapshotRequest.model_validate(self.build.request)


SNAPSHOT = Catalogue("snapshot", SnapshotBuild)
SNAPSHOT_KIND = Kind("vm snapshot", SNAPSHOT, SnapshotBuild)
step = SNAPSHOT.stage("H")


@SNAPSHOT.stage("A")(1, "Validate the snapshot request")
def validate_snapshot(
    build: Build, form: dict[str, Any], world: World, store: StateStore
) -> dict[str, Any]:
    """Look at the whole request: the caller, the VM, and what is possible with it now."""
    request, vm = read_request(SnapshotRequest, build, form, store)
    store.builds.update(build.id, name=f"{vm.name} {request.name}")
    running = world.hypervisor.state(vm.id) in ("running", "paused")
    memory = running if request.kind == "internal" else request.memory
    refuse_what_cannot_be(store, vm, request, running=running, memory=memory)
    # Also against what another snapshot does meanwhile: step 2 looks again.
    store.builds.note(build.id, instance=vm.id, memory=memory)
    return {"vm": vm.name, "running": running, "memory": memory}


def refuse_what_cannot_be(
    store: StateStore, vm: Build, request: SnapshotRequest, *, running: bool, memory: bool
) -> None:
    """Check what a VM has, and does, against what is asked for.

    Args:
        store: The state store.
        vm: The VM's build.
        request: What is asked for.
        running: Whether the guest runs.
        memory: Whether the snapshot would hold its memory.

    Raises:
        Unsupported: It has an encrypted disk, or volumes that do not go with it.
        Conflict: It would have to run.
    """
    instance = store.instances.get(vm.id)
    if store.images.get(instance.image_id).encrypted:
        raise Unsupported(
            f"the disk of {vm.name} is encrypted: snapshots of encrypted disks are not supported",
            hint="copy what is to be kept out of the guest",
        )
    if not running and (request.memory or request.quiesce):
        raise Conflict(
            f"{vm.name} is off: it has no memory to keep, and nothing to quiesce",
            hint="leave out --memory and --quiesce",
        )
    volumes = len(plugged_volumes(store, vm.id))
    if volumes and request.kind == "internal":
        raise Unsupported(
            f"{vm.name} has {volumes} volume(s): libvirt takes internal snapshots of all disks "
            "or of none, and volumes are not a part of one",
            hint="take an external one",
        )
    if volumes and memory:
        raise Unsupported(
            f"{vm.name} has {volumes} volume(s), which are not a part of a snapshot: memory from "
            "before would spoil what they hold by the time of a revert",
            hint="leave out --memory",
        )


def forget_snapshot(subject: SnapshotBuild, store: StateStore) -> None:
    """Forget the snapshot's record."""
    subject.require_undone(3)
    store.snapshots.forget(subject.build_id)


@step(2, "Record the snapshot", undo=forget_snapshot)
def record_snapshot(subject: SnapshotBuild) -> dict[str, Any]:
    """Record it with the file that is to be frozen; its own files are called by its id.

    From here on nothing else is done with the VM's snapshots, until this one is done or undone.
    """
    request = subject.request
    with subject.alone:
        instance = require_complete(subject.store, subject.instance_id)
        top = require_settled(subject, subject.layers.top(instance.id))
        snapshot = subject.store.snapshots.record(
            Snapshot(
                id=subject.build_id,
                tenant_id=instance.tenant_id,
                instance_id=instance.id,
                name=request.name,
                kind=request.kind,
                memory=subject.plan["memory"],
                quiesced=request.quiesce,
                frozen=top.name if request.kind == "external" else None,
                interfaces=subject.hypervisor.interfaces(instance.id),
                created_at=now(),
            )
        )
    return snapshot.model_dump(mode="json")


def drop_snapshot(subject: SnapshotBuild) -> None:
    """Merge what was written since into what was frozen; of an internal one, delete it.

    Block commit: the guest runs meanwhile, and keeps all that it has written.
    """
    if subject.is_gone:
        return
    try:
        snapshot = subject.snapshot
    except NotFound:
        return
    with subject.alone:
        if snapshot.frozen is None:
            subject.internal.delete(snapshot.instance_id, snapshot.id)
            return
        _merge_back(subject, subject.directory / snapshot.frozen)
        disk_layers.remove(subject.memory_file)


@step(3, "Freeze the disk", undo=drop_snapshot)
def freeze_disk(subject: SnapshotBuild, world: World) -> str:
    """Freeze the disk as it is, and the memory where that was asked for.

    External: QEMU goes on in a new layer, at one moment for the guest (`blockdev-snapshot`);
    internal: QEMU's `savevm`, or qemu-img where it is off. Here Nova has
    `nova.virt.libvirt.driver.LibvirtDriver._live_snapshot`.
    """
    snapshot = subject.snapshot
    with subject.alone:
        require_complete(subject.store, snapshot.instance_id)
        if snapshot.frozen is None:
            subject.internal.take(snapshot.instance_id, snapshot.id)
            return snapshot.id
        layers, layer = subject.layers, subject.layer
        if layers.top(snapshot.instance_id) != layer:
            disk_layers.remove(subject.memory_file)
        memory = subject.memory_file if snapshot.memory else None
        layers.freeze(snapshot.instance_id, layer, memory=memory, quiesce=snapshot.quiesced)
        note_layer(world, snapshot.instance_id, layer)
    return layer.name


@step(4, "Make the snapshot available")
def make_available(build: Build, store: StateStore) -> str:
    """Say that it is whole, and that the VM goes on from it."""
    store.snapshots.make_available(build.id, build.id, current=True)
    return build.id


def _merge_back(subject: SnapshotBuild, frozen: Path) -> None:
    """Take the freezing back, however far it came, whatever was frozen or reverted since."""
    if not frozen.exists():
        return
    if subject.layers.top(subject.instance_id) == frozen:
        disk_layers.remove(subject.layer)  # made, and not put on it yet
        return
    merged = subject.build.plan.get("merges") or _one_above(frozen)
    if merged is None:
        disk_layers.remove(frozen)  # the VM was reverted to an older one since
        return
    # On disk before it begins: afterwards something else is on the frozen one.
    subject.store.builds.note(subject.build_id, merges=merged)
    subject.layers.melt(subject.instance_id, frozen.with_name(merged))
    subject.store.snapshots.move(subject.instance_id, merged, frozen.name)
    note_layer(subject.world, subject.instance_id, subject.layers.top(subject.instance_id))


def _one_above(frozen: Path) -> str | None:
    found = disk_layers.above(frozen)
    if len(found) > 1:
        raise Conflict(f"{frozen.name} is below {', '.join(one.name for one in found)}")
    return found[0].name if found else None


def _begin_deletion(subject: SnapshotBuild) -> None:
    """Check that a snapshot can be deleted, and say that it is."""
    try:
        snapshot = subject.snapshot
    except NotFound:
        return
    require_complete(subject.store, snapshot.instance_id)
    if snapshot.status == "available" and snapshot.frozen is not None:
        on_it = disk_layers.above(subject.directory / snapshot.frozen)
        if len(on_it) > 1:
            names = {
                one.frozen: f"the snapshot {one.name}"
                for one in subject.store.snapshots.of(snapshot.instance_id)
            }
            told = sorted(names.get(one.name, "the VM as it is now") for one in on_it)
            raise Conflict(
                f"{' and '.join(told)} both come from {snapshot.name!r}",
                hint="delete those first, but one; or revert to one of them",
            )
    if snapshot.status != "creating":
        subject.store.snapshots.claim(snapshot.id, "deleting", subject.build_id)

"""Bringing a VM back to a snapshot: what was written since is discarded, once the VM is back.

By hand, as libvirt 9.0 cannot (see `blocks.hypervisor.snapshots`). The snapshot stays.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from blocks.errors import Conflict, HostFault
from blocks.hypervisor import disk_layers
from blocks.resources import InstanceStatus, SnapshotReference
from blocks.state import Build, StateStore
from blocks.world import World
from tasks.complete_vm import require_complete
from tasks.ends import Kind
from tasks.snapshot_subject import (
    SnapshotSubject,
    has_no_network,
    note_layer,
    plugged_volumes,
    read_request,
    require_settled,
    was_lost,
)
from tasks.step import Catalogue


class RevertBuild(SnapshotSubject):
    """One revert of a VM."""

    def settle(self, state: str, fault: dict[str, Any] | None) -> str:
        """Say how the build stands (see `Buildable`)."""
        del fault
        words = {"complete": "reverted", "undone": "as it was, not reverted"}
        return f"{self.build.name}: {words.get(state, state)}"

    @property
    def subject(self) -> RevertBuild:
        """The build itself."""
        return self

    @property
    def snapshot_id(self) -> str:
        """The snapshot that the VM is brought back to (from step 1 on)."""
        return str(self.plan["snapshot"])

    @property
    def was_on(self) -> Path:
        """The layer that was on top before."""
        return self.directory / str(self.plan["was_on"])

    @property
    def may_go_back(self) -> bool:
        """Whether the VM can still be as it was: nothing of it was discarded yet."""
        return not self.is_gone and not self.plan.get("reverted")


REVERT = Catalogue("revert", RevertBuild)
REVERT_KIND = Kind("vm snapshot", REVERT, RevertBuild, undo_again="revert")
step = REVERT.stage("H")


@REVERT.stage("A")(1, "Validate the revert request")
def validate_revert(
    build: Build, form: dict[str, Any], world: World, store: StateStore
) -> dict[str, Any]:
    """Look at the whole request: the caller, the VM, and that it fits the snapshot."""
    request, vm = read_request(SnapshotReference, build, form, store)
    snapshot = store.snapshots.find(vm.id, request.name)
    store.builds.update(build.id, name=f"{vm.name} {snapshot.name}")
    instance = store.instances.get(vm.id)
    runs = instance.status is InstanceStatus.ACTIVE and world.hypervisor.state(vm.id) == "running"
    if was_lost(store, instance) or (snapshot.memory and has_no_network(store, instance)):
        raise Conflict(
            f"the host was rebooted since {vm.name} was started",
            hint=f"`fifty vm start {vm.name}` first: it brings back its network",
        )
    there = world.hypervisor.interfaces(vm.id)
    if snapshot.memory and (snapshot.interfaces != there or plugged_volumes(store, vm.id)):
        raise Conflict(
            f"{vm.name} has other interfaces or volumes than its memory in {snapshot.name!r} knows",
            hint="unplug those that were plugged in since",
        )
    document = {
        "instance": vm.id,
        "snapshot": snapshot.id,
        "ran": runs,
        "runs": runs or snapshot.memory,
    }
    store.builds.note(build.id, **document)
    return document


def leave_snapshot(subject: RevertBuild, store: StateStore) -> None:
    """Say that nothing is done with the snapshot any more."""
    subject.require_undone(3)
    if not subject.is_gone:
        store.snapshots.make_available(subject.snapshot_id, subject.build_id)


@step(2, "Claim the snapshot", undo=leave_snapshot)
def claim_snapshot(subject: RevertBuild, store: StateStore) -> str:
    """See to it that nothing else is done with the VM's snapshots meanwhile."""
    with subject.alone:
        require_complete(store, subject.instance_id)
        store.snapshots.claim(subject.snapshot_id, "reverting", subject.build_id)
        top = require_settled(subject, subject.layers.top(subject.instance_id))
        store.builds.note(subject.build_id, was_on=top.name)
    return top.name


def let_run_again(subject: RevertBuild) -> None:
    """Start the guest again where it ran: from its disk, its memory is gone.

    After a reboot of the host that is left to the reconcile, which brings back its network, too.
    """
    if not subject.may_go_back or not subject.plan["ran"]:
        return
    if was_lost(subject.store, subject.instance):
        return
    subject.require_undone(5)
    with subject.alone:
        subject.hypervisor.start_paused(subject.instance_id)
        subject.hypervisor.resume(subject.instance_id)


@step(3, "Stop the guest", undo=let_run_again)
def stop_guest(subject: RevertBuild, store: StateStore) -> None:
    """Stop it at once: what it has not written yet would be discarded anyway."""
    with subject.alone:
        require_complete(store, subject.instance_id)
        subject.hypervisor.destroy(subject.instance_id)


def remove_new_layer(subject: RevertBuild) -> None:
    """Remove the new layer."""
    subject.require_undone(5)
    if subject.may_go_back:
        with subject.alone:
            disk_layers.remove(subject.layer)


@step(4, "Put a new layer on what was frozen", undo=remove_new_layer)
def make_layer(subject: RevertBuild) -> str | None:
    """Make an empty layer on the frozen file, which stays as it is."""
    snapshot = subject.snapshot
    if snapshot.frozen is None:
        return None
    with subject.alone:
        disk_layers.make(subject.layer, subject.directory / snapshot.frozen)
    return subject.layer.name


def go_back(subject: RevertBuild, world: World) -> None:
    """Put the guest on the layer that it was on; an internal snapshot has none to go back to."""
    if not subject.may_go_back or subject.snapshot.frozen is None:
        return
    with subject.alone:
        subject.hypervisor.destroy(subject.instance_id)
        subject.layers.switch(subject.instance_id, subject.was_on)
        note_layer(world, subject.instance_id, subject.was_on)


@step(5, "Put the guest on the snapshot", undo=go_back)
def switch_disk(subject: RevertBuild, world: World, store: StateStore) -> str:
    """Have the domain's definition name the new layer; of an internal one, have QEMU revert."""
    snapshot, instance_id = subject.snapshot, subject.instance_id
    with subject.alone:
        require_complete(store, instance_id)
        subject.hypervisor.destroy(instance_id)
        if snapshot.frozen is not None:
            subject.layers.switch(instance_id, subject.layer)
            note_layer(world, instance_id, subject.layer)
            return subject.layer.name
        if not snapshot.memory:
            subject.internal.revert(instance_id, snapshot.id)
            # libvirt has put back its definition of then, too.
            subject.hypervisor.define(store.builds.get(instance_id).plan["xml"])
    return snapshot.id


def stop_again(subject: RevertBuild) -> None:
    """Stop the guest."""
    if subject.may_go_back:
        with subject.alone:
            subject.hypervisor.destroy(subject.instance_id)


@step(6, "Start the guest", undo=stop_again)
def start_guest(subject: RevertBuild, store: StateStore) -> str:
    """Start it with the memory that was kept; without any, from its disk where it ran before.

    Its clock is that of then, where it goes on with its memory.
    """
    snapshot, instance_id = subject.snapshot, subject.instance_id
    if not subject.plan["runs"]:
        return "off"
    with subject.alone:
        require_complete(store, instance_id)
        hypervisor = subject.hypervisor
        if snapshot.memory and not subject.layers.runs(instance_id):
            if snapshot.frozen is None:
                subject.internal.revert(instance_id, snapshot.id)
                hypervisor.define(store.builds.get(instance_id).plan["xml"])
            else:
                subject.layers.restore(instance_id, subject.memory_file, subject.layer)
        # Started already, it only gets its ports' rates.
        hypervisor.start_paused(instance_id)
        if hypervisor.state(instance_id) not in ("paused", "running"):
            raise HostFault("the guest did not start", hint="see /var/log/libvirt/qemu")
        hypervisor.resume(instance_id)
        store.instances.set_status(instance_id, InstanceStatus.ACTIVE)
    return "running"


def end_discarding(subject: RevertBuild, store: StateStore) -> None:
    """There is no way back: discard the rest, where that was begun."""
    if subject.plan.get("reverted") and not subject.is_gone:
        with subject.alone:
            _discard(subject, store)


@step(7, "Discard what was written since", undo=end_discarding)
def discard(subject: RevertBuild, store: StateStore) -> str:
    """Remove the layer that was on top, unless it belongs to a later snapshot.

    From here on there is no way back.
    """
    with subject.alone:
        store.builds.note(subject.build_id, reverted=True)
        _discard(subject, store)
    return subject.snapshot.name


def _discard(subject: RevertBuild, store: StateStore) -> None:
    snapshot, was_on = subject.snapshot, subject.was_on
    kept = {one.frozen for one in store.snapshots.of(subject.instance_id)}
    if snapshot.frozen is not None and was_on != subject.layer and was_on.name not in kept:
        disk_layers.remove(was_on)
    store.snapshots.make_available(snapshot.id, subject.build_id, current=True)

"""A VM and its host's reboot: what tells that it must be started again, or that it is off."""

from __future__ import annotations

from typing import Any

from blocks.errors import Conflict
from blocks.resources import Instance, InstanceStatus
from blocks.state import Build
from blocks.world import World
from tasks.events import announce
from tasks.vm_build import VmBuild

#: Its journal row tells on which boot of the host QEMU was started last.
START_STEP = 44
#: What a domain does that is to be taken for a guest that is there (`LibvirtHost.state`).
_THERE = ("running", "paused", "shutdown", "suspended")


def lost_vm(subject: VmBuild) -> list[str]:
    """Why a VM must be started again: it should be running, and the host was rebooted.

    One that is off stays off, as in Nova: who shut it down may want that.
    """
    instance = subject.store.instances.get(subject.build_id)
    if instance.status is not InstanceStatus.ACTIVE or instance.host != subject.store.host:
        return []
    if subject.store.journal.rebooted(subject.build_id, subject.generation, START_STEP):
        return ["the host was rebooted"]
    return []


def vm_runs(subject: VmBuild) -> bool:
    """Whether a VM is recorded ACTIVE, and its guest is there."""
    instance = subject.store.instances.get(subject.build_id)
    if instance.status is not InstanceStatus.ACTIVE:
        return False
    return subject.hypervisor.state(instance.id) in _THERE


def powered_off(world: World) -> list[tuple[Build, str]]:
    """VMs that are recorded ACTIVE and do not run, each with what its domain is instead.

    Those that a run works on, and those that a reboot took down, are not among them.

    Raises:
        HostFault, Transient: libvirt does not answer.
    """
    store = world.store
    found = []
    for build in store.builds.complete():
        if build.catalogue != "vm" or store.leases.held(build.id) is not None:
            continue
        instance = store.instances.get(build.id)
        here = instance.status is InstanceStatus.ACTIVE and instance.host == store.host
        if not here or store.journal.rebooted(build.id, build.generation, START_STEP):
            continue
        state = world.hypervisor.state(build.id)
        if state not in _THERE:
            found.append((build, state or "gone"))
    return found


def record_power_off(world: World, build: Build) -> bool:
    """Record that a VM is off, as Nova's power sync does (`_sync_power_states`).

    Nothing is started: its guest may have been shut down from within. Under the build's
    lease, and looked at again there: a start of it may have come in between.

    Returns:
        Whether it is off, and this recorded it.
    """
    store = world.store
    try:
        token = store.leases.acquire(build.id, "power-sync")
    except Conflict:
        return False
    try:
        announce(store)
        instance = store.instances.get(build.id)
        state = world.hypervisor.state(build.id)
        if instance.status is not InstanceStatus.ACTIVE or state in _THERE:
            return False
        fault = _fault(instance, state)
        return store.instances.set_status(build.id, InstanceStatus.SHUTOFF, fault=fault)
    finally:
        store.leases.release(build.id, token)


def _fault(instance: Instance, state: str | None) -> dict[str, Any] | None:
    """What there is to tell about a guest that is off; nothing where it was shut down."""
    why = {
        "crashed": "its QEMU ended on its own, or was killed",
        None: "its domain is not defined any more",
    }.get(state)
    if why is None:
        return None
    return {
        "error": "GuestFault",
        "message": f"{instance.name} is off: {why}",
        "hint": f"`fifty vm start {instance.name}` starts it; its log is in /var/log/libvirt/qemu",
        "details": [],
        "step": None,
    }

"""What the builds that are about a VM's snapshots have in common for their steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from blocks.errors import Conflict, InvalidRequest, NotFound, Transient
from blocks.hypervisor import GuestSpec, LibvirtHost
from blocks.hypervisor.instance_dirs import layer_name, memory_name, owner_of
from blocks.hypervisor.internal_snapshots import InternalSnapshots
from blocks.hypervisor.snapshots import Snapshots
from blocks.resources import (
    Instance,
    InstanceStatus,
    Snapshot,
    SnapshotReference,
    SnapshotRequest,
    Volume,
)
from blocks.state import Build, StateStore, StepState
from blocks.state.snapshots import CATALOGUES
from blocks.world import World
from tasks.access import admitted
from tasks.complete_vm import find_complete
from tasks.draft import describe_all
from tasks.leasing import holding
from tasks.subject import BuildSubject
from tasks.vm_restore import START_STEP

_Request = TypeVar("_Request", SnapshotRequest, SnapshotReference)


def read_request(
    kind: type[_Request], build: Build, form: Mapping[str, Any], store: StateStore
) -> tuple[_Request, Build]:
    """The request, as the whole of its form says, and the build of the VM that it is about.

    Args:
        kind: The form's model.
        build: The request's build; who asks is recorded with it.
        form: The request.
        store: The state store.

    Raises:
        Denied: Who asks is not known, or may not.
        InvalidRequest: The form is wrong; the details name everything that is.
        NotFound: There is no such VM.
        Conflict: The VM is not complete, or on another host.
    """
    caller = admitted(build, store, f"{build.catalogue}:create")
    wrong = describe_all(kind, form)
    if wrong:
        raise InvalidRequest(f"the {build.catalogue} request is wrong", details=wrong)
    request = kind.model_validate(form)
    return request, find_complete(store, caller, request.vm, build.credentials)


def require_settled(subject: SnapshotSubject, top: Path) -> Path:
    """The layer on top, which is there to stay.

    Raises:
        Conflict: It is there for a moment only: the disk is being read beneath it.
    """
    owner = owner_of(top.name)
    if owner is not None and owner != subject.build_id:
        build = subject.store.builds.get(owner)
        if build.catalogue not in CATALOGUES:
            raise Conflict(
                f"the disk is frozen for the {build.catalogue} {build.name}",
                hint="wait for that to end; `fifty reconcile` ends it where it has stopped",
            )
    return top


def plugged_volumes(store: StateStore, instance_id: str) -> list[Volume]:
    """The volumes that a VM's guest has as disks now."""
    return [volume for volume in store.volumes.of(instance_id) if volume.plugged]


def has_no_network(store: StateStore, instance: Instance) -> bool:
    """Whether this host was rebooted since the VM was started: its taps are gone."""
    return store.journal.rebooted(instance.id, instance.generation, START_STEP)


def was_lost(store: StateStore, instance: Instance) -> bool:
    """Whether the reboot of this host took the VM down."""
    return instance.status is InstanceStatus.ACTIVE and has_no_network(store, instance)


class SnapshotSubject(BuildSubject):
    """One build that is about a snapshot of a VM."""

    @property
    def instance_id(self) -> str:
        """The VM's id (from step 1 on)."""
        return str(self.plan["instance"])

    @property
    def instance(self) -> Instance:
        """The VM."""
        return self.store.instances.get(self.instance_id)

    @property
    def directory(self) -> Path:
        """The VM's directory."""
        return self.world.directories.path(self.instance_id)

    @property
    def hypervisor(self) -> LibvirtHost:
        """This host's libvirt."""
        return self.world.hypervisor

    @property
    def layers(self) -> Snapshots:
        """The VM's disk in layers."""
        return Snapshots(self.hypervisor.connection, self.hypervisor.site)

    @property
    def internal(self) -> InternalSnapshots:
        """The snapshots inside of the disk's file."""
        return InternalSnapshots(self.hypervisor.connection, self.hypervisor.site)

    @property
    def layer(self) -> Path:
        """The layer that this build makes."""
        return self.directory / layer_name(self.build_id)

    @property
    def snapshot_id(self) -> str:
        """The snapshot that it is about."""
        return self.build_id

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot, as recorded."""
        return self.store.snapshots.get(self.snapshot_id)

    @property
    def memory_file(self) -> Path:
        """The file with the memory that the snapshot holds."""
        return self.directory / memory_name(self.snapshot_id)

    def require_undone(self, first: int) -> None:
        """Check that the undos of a step and of those after it succeeded.

        One that fails does not stop those before it: these must not act as if it had.

        Raises:
            Conflict: One did not.
        """
        for entry in self.store.journal.entries(self.build_id, self.generation):
            if entry.step >= first and entry.state is not StepState.UNDONE:
                raise Conflict(f"step {entry.step} is not undone yet")

    @property
    def alone(self) -> AbstractContextManager[None]:
        """The VM's lease, for a step: nobody starts, changes or deletes it meanwhile."""
        return _alone(self.store, self.instance_id, self.build.catalogue)

    @property
    def is_gone(self) -> bool:
        """Whether the VM was deleted, with all of its files."""
        if "instance" not in self.plan:
            return True
        try:
            return self.store.builds.get(self.instance_id).state in ("deleted", "undone")
        except NotFound:
            return True


@contextmanager
def _alone(store: StateStore, instance_id: str, purpose: str) -> Iterator[None]:
    try:
        token = store.leases.acquire(instance_id, purpose)
    except Conflict as error:
        # Who is at work on it may be through in a moment.
        raise Transient(f"the VM is busy: {error.message}", hint=error.hint) from error
    with holding(store.leases, instance_id, token):
        yield


def note_layer(world: World, instance_id: str, layer: Path) -> None:
    """Keep with a VM's build which layer is on top: for when its domain is defined again."""
    plan = world.store.builds.get(instance_id).plan
    spec = GuestSpec.model_validate(plan["spec"]).with_root_layer(layer)
    world.store.builds.note(
        instance_id, spec=spec.model_dump(mode="json"), xml=world.hypervisor.compose(spec)
    )

"""The capture of a VM's disk as an image: its steps, beside those of a build in the catalogue.

The disk is frozen for as long as it is read; the VM may run, start and stop meanwhile: what it
writes goes into a layer of its own, which is merged again afterwards.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from prefect import get_run_logger

from blocks.errors import Conflict, InvalidRequest, UnsafeImage, Unsupported
from blocks.hypervisor.disk_layers import layer_name
from blocks.hypervisor.snapshots import Snapshots
from blocks.images import ImageStore
from blocks.images.access.base import Access
from blocks.images.editing import EditedImage
from blocks.resources import CaptureRequest, Image, ImageFormat
from blocks.state import Build, Caller, StateStore
from blocks.state.tables.base import now
from blocks.world import World
from tasks.draft import describe_all
from tasks.image_build import forget_image, step
from tasks.image_names import admitted, named
from tasks.policy import allows
from tasks.run import lease
from tasks.vm_build import VmBuild

T = TypeVar("T")


@step(41, "Validate the capture request")
def validate_capture(build: Build, form: dict[str, Any], store: StateStore) -> str:
    """Look at the whole request: the caller, the VM and its host, and that the name is free.

    Here Nova's API has `createImage` (`nova.compute.api.API.snapshot`).
    """
    caller = admitted(build, store, "image:capture")
    wrong = describe_all(CaptureRequest, form)
    if wrong:
        raise InvalidRequest("the capture request is wrong", details=wrong)
    request = CaptureRequest.model_validate(form)
    vm = store.builds.find(
        "vm", request.vm, caller.tenant_id, foreign=allows(caller, "any:foreign")
    )
    if vm.state != "complete":
        raise Conflict(f"{vm.name} is {vm.state}", hint="its disk can be taken when it is complete")
    instance = store.instances.get(vm.id)
    if instance.host != store.host:
        raise Conflict(f"{vm.name} is on the host {instance.host}", hint="ask for it on that host")
    image = store.images.get(instance.image_id)
    if image.encrypted:
        raise Unsupported(f"the disk of {vm.name} is encrypted: nothing here can look into it")
    if image.os == "windows" and request.generalise:
        raise Unsupported(
            "no Windows is generalised from outside", hint="run sysprep in it; --as-it-is"
        )
    if named(build, store, caller, request.name, request.version):
        raise Conflict(
            f"an image named {request.reference!r} is there already",
            hint="give the new one another --version, or another name",
        )
    store.builds.update(build.id, name=request.reference)
    store.builds.note(build.id, captures=vm.id, disk_gib=instance.flavor.disk_gib)
    return vm.id


def melt_disk(build: Build, world: World) -> None:
    """Merge what the VM has written meanwhile into its disk; a VM that is gone has none."""
    vm_id = build.plan["captures"]

    def melt(vm: Build) -> None:
        if vm.state != "deleted":
            layers = _layers(world)
            layers.melt(vm_id, _layer(build, world))

    _at_rest(world, vm_id, melt)


@step(42, "Freeze the disk", undo=melt_disk)
def freeze_disk(build: Build, capture_request: CaptureRequest, world: World) -> str:
    """Have the VM write into a new layer: what is below stays as it is, and is read.

    Here Nova makes an external snapshot and later a block commit, too
    (`nova.virt.libvirt.driver.LibvirtDriver._live_snapshot`).
    """
    vm_id = build.plan["captures"]

    def freeze(vm: Build) -> Path:
        if vm.state != "complete":
            raise Conflict(f"{vm.name} is {vm.state}")
        layers = _layers(world)
        quiesce = capture_request.quiesce
        return layers.freeze(vm_id, _layer(build, world), quiesce=quiesce)

    frozen = _at_rest(world, vm_id, freeze)
    world.store.builds.note(build.id, frozen=str(frozen))
    return str(frozen)


def remove_capture(build: Build, images: ImageStore) -> None:
    """Remove the new image's file, whole or begun, and what holds it open."""
    images.editor.release(build.id)
    images.remove_image(build.id)


@step(43, "Begin the image", undo=remove_capture)
def begin_capture(build: Build, images: ImageStore) -> str:
    """Put an overlay on the frozen disk: what is changed goes there, the disk is only read.

    File systems of a guest that ran are as after a power cut: their journals are replayed.
    """
    frozen = Path(build.plan["frozen"])
    overlay = images.editor.begin_on(frozen, ImageFormat.QCOW2, build.id, "the VM's disk")
    images.editor.settle(build.id)
    return str(overlay)


@step(44, "Generalise it", undo=remove_capture)
def generalise_capture(
    build: Build, capture_request: CaptureRequest, images: ImageStore, store: StateStore
) -> str:
    """Take out what makes it one certain machine, where that is asked for.

    Machine id, host keys, leases, cloud-init's state, network names, login keys, logs. A
    guest has written it: the host's kernel reads nothing of it. OpenStack leaves this to
    its users (`virt-sysprep`).
    """
    if not capture_request.generalise:
        return "as it is"

    def look(guest: Access) -> None:
        try:
            seen = images.keep_cloud_init(build.id, guest)
        except UnsafeImage as error:
            get_run_logger().warning("the image's cloud-init cannot be read: %s", error)
            return
        store.builds.note(build.id, cloud_init=seen and seen.model_dump(mode="json"))

    way = images.editor.change(build.id, [], generalise=True, trusted=False, method=None, look=look)
    return str(way)


@step(45, "Finish the image")
def finish_capture(build: Build, images: ImageStore, store: StateStore) -> dict[str, Any]:
    """Flatten it into the store, compressed, inspected as what it is now."""
    document = images.editor.finish(build.id).model_dump(mode="json")
    store.builds.note(build.id, captured=document)
    return document


@step(46, "Give the disk back")
def give_back(build: Build, world: World) -> None:
    """Merge what the VM has written meanwhile into its disk."""
    melt_disk(build, world)


@step(47, "Record the captured image", undo=forget_image)
def record_capture(
    build: Build, caller: Caller, capture_request: CaptureRequest, store: StateStore
) -> str:
    """Record it in the catalogue: what the VM's image says of itself, with its own checksum.

    It is its maker's alone, has no certificate, and is not trusted: a guest has written it.
    """
    plan = build.plan
    made = EditedImage.model_validate(plan["captured"])
    instance = store.instances.get(plan["captures"])
    parent = store.images.get(instance.image_id)
    seen = plan.get("cloud_init")
    store.images.put(
        Image(
            **made.model_dump(mode="json"),
            id=build.id,
            tenant_id=caller.tenant_id,
            name=capture_request.name,
            version=capture_request.version,
            min_disk_gib=plan["disk_gib"],
            min_ram_mib=parent.min_ram_mib,
            os=parent.os,
            architecture=parent.architecture,
            login_user=parent.login_user,
            ready_marker=parent.ready_marker,
            boot_timeout_s=parent.boot_timeout_s,
            injectable=parent.injectable,
            properties=parent.properties,
            parent_id=parent.id,
            source=f"capture of the VM {instance.name}",
            built_at=now(),
            report={"cloud_init": seen} if seen else None,
        )
    )
    return build.id


def _layers(world: World) -> Snapshots:
    return Snapshots(world.hypervisor.connection, world.site)


def _layer(build: Build, world: World) -> Path:
    """The layer that takes what the VM writes: named by the capture, so that it is found."""
    return world.directories.path(build.plan["captures"]) / layer_name(build.id)


def _at_rest(world: World, vm_id: str, work: Callable[[Build], T]) -> T:
    """Do something with a VM while nobody else works on it, apart from the step's own build.

    Raises:
        NotFound: There is none.
    """
    vm = world.store.builds.get(vm_id)

    def body() -> T:
        with lease(VmBuild(world, vm), "capture"):
            return work(world.store.builds.get(vm_id))

    return contextvars.copy_context().run(body)

"""The capture of a VM's disk as an image: its steps, beside those of a build in the catalogue.

The disk is read from a snapshot that is taken for it, and deleted when it was read; the VM may
run, start and stop meanwhile.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import Any

from prefect import get_run_logger
from prefect.client.schemas.objects import State

from blocks.errors import Conflict, InvalidRequest, NeedsAttention, UnsafeImage, Unsupported
from blocks.images import ImageStore
from blocks.images.access.base import Access
from blocks.images.stored import StoredImage
from blocks.resources import CaptureRequest, Image, ImageFormat
from blocks.state import Build, Caller, StateStore
from blocks.state.tables.base import now
from blocks.world import World
from tasks.access import admitted
from tasks.complete_vm import find_complete
from tasks.draft import describe_all
from tasks.image_build import forget_image, step
from tasks.image_names import named
from tasks.run import Runner
from tasks.session import create, delete_build
from tasks.snapshot_take import (
    SNAPSHOT,
    SNAPSHOT_KIND,
    make_available,
    record_snapshot,
    validate_snapshot,
)
from tasks.snapshot_take import freeze_disk as freeze_snapshot
from tasks.step_progress import telling


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
    vm = find_complete(store, caller, request.vm, build.credentials)
    instance = store.instances.get(vm.id)
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


def give_up_snapshot(build: Build, world: World) -> None:
    """Delete the snapshot: what the VM has written meanwhile is merged into its disk."""
    taken = _snapshot_build(build, world.store)
    if taken is None or taken.state in ("refused", "undone", "deleted"):
        return
    state = _apart(lambda: delete_build(SNAPSHOT_KIND, world, taken))
    if not state.is_completed():
        raise NeedsAttention(f"the snapshot could not be deleted: {state.message}")


@step(42, "Freeze the disk", undo=give_up_snapshot)
def freeze_disk(build: Build, capture_request: CaptureRequest, world: World) -> str:
    """Take a snapshot: what is below stays as it is, and is read; the VM goes on.

    Here Nova makes an external snapshot and later a block commit, too
    (`nova.virt.libvirt.driver.LibvirtDriver._live_snapshot`).
    """
    form = {
        "vm": build.plan["captures"],
        "name": f"capture-{build.id[:8]}",
        "quiesce": capture_request.quiesce,
        "request_id": _request_id(build),
        "credentials": build.credentials,
    }
    state = _apart(lambda: create(SNAPSHOT_KIND, form, _take_snapshot))
    taken = _snapshot_build(build, world.store)
    if taken is None or taken.state != "complete":
        why = (state.message or "no reason is known").splitlines()[0]
        raise Conflict(f"the disk cannot be taken: {why}")
    return taken.id


def _take_snapshot(run: Runner) -> None:
    run(validate_snapshot)
    run(record_snapshot)
    run(freeze_snapshot)
    run(make_available)


def remove_capture(build: Build, images: ImageStore) -> None:
    """Remove the new image's file, whole or begun, and what holds it open."""
    images.editor.release(build.id)
    images.remove_image(build.id)


@step(43, "Begin the image", undo=remove_capture)
def begin_capture(build: Build, images: ImageStore, world: World) -> str:
    """Put an overlay on the frozen disk: what is changed goes there, the disk is only read.

    File systems of a guest that ran are as after a power cut: their journals are replayed.
    """
    taken = world.store.snapshots.get(_required(_snapshot_build(build, world.store)).id)
    frozen = world.directories.path(taken.instance_id) / str(taken.frozen)
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
    with telling("compressing", build.name) as meter:
        document = images.editor.finish(build.id, meter.percent).model_dump(mode="json")
    store.builds.note(build.id, captured=document)
    return document


@step(46, "Give the disk back")
def give_back(build: Build, world: World) -> None:
    """Delete the snapshot: what the VM has written meanwhile is merged into its disk."""
    give_up_snapshot(build, world)


@step(47, "Record the captured image", undo=forget_image)
def record_capture(
    build: Build, caller: Caller, capture_request: CaptureRequest, store: StateStore
) -> str:
    """Record it in the catalogue: what the VM's image says of itself, with its own checksum.

    It is its maker's alone, has no certificate, and is not trusted: a guest has written it.
    """
    plan = build.plan
    made = StoredImage.model_validate(plan["captured"])
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


def _request_id(build: Build) -> str:
    return f"capture-image/{build.id}/{build.generation}"


def _snapshot_build(build: Build, store: StateStore) -> Build | None:
    """The build of the snapshot that was taken for a capture; None before there is one."""
    return store.builds.of_request(SNAPSHOT.name, build.credentials, _request_id(build))


def _required(taken: Build | None) -> Build:
    if taken is None or taken.state != "complete":
        raise Conflict("the snapshot that was taken is gone", hint="capture it again")
    return taken


def _apart(work: Callable[[], State[Any]]) -> State[Any]:
    """Do something that works on another build than the step that it is done in."""
    return contextvars.copy_context().run(work)

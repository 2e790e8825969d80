"""The edit of an image: its steps, beside those of a build in the images' catalogue."""

from __future__ import annotations

from typing import Any

from prefect import get_run_logger

from blocks.errors import Conflict, InvalidRequest, UnsafeImage
from blocks.images import ImageStore
from blocks.images.access.base import Access, Change, Method, Put, Remove
from blocks.images.stored import StoredImage
from blocks.resources import EditRequest
from blocks.state import Build, Caller, StateStore
from blocks.state.tables.base import now
from tasks.access import admitted
from tasks.draft import describe_all
from tasks.image_build import forget_image, step
from tasks.image_names import named
from tasks.image_origin import EDIT_OF, find_image, is_trusted, require_active
from tasks.step_progress import telling


@step(21, "Validate the edit request")
def validate_edit(build: Build, form: dict[str, Any], store: StateStore) -> str:
    """Look at the whole request: the caller, the image to change, and that the name is free.

    An image is never changed itself: VMs run on it. Here Glance forbids it, too
    (`glance.api.v2.image_data`: data of an active image cannot be uploaded again).
    """
    caller = admitted(build, store, "image:edit")
    wrong = describe_all(EditRequest, form)
    if wrong:
        raise InvalidRequest("the edit request is wrong", details=wrong)
    request = EditRequest.model_validate(form)
    image = find_image(store, caller, request.image)
    require_active(image)
    if named(build, store, caller, request.name, request.version):
        raise Conflict(
            f"an image named {request.reference!r} is there already",
            hint="give the new one another --version, or another name",
        )
    store.builds.update(build.id, name=request.reference)
    store.builds.note(build.id, edits=image.id)
    return image.id


def remove_edit(build: Build, images: ImageStore) -> None:
    """Remove the new image's file, whole or begun, and what holds it open."""
    images.editor.release(build.id)
    images.remove_image(build.id)


@step(22, "Begin the new image", undo=remove_edit)
def begin_edit(build: Build, images: ImageStore, store: StateStore) -> str:
    """Put an overlay on the image: what is changed goes there, the image is only read."""
    source = store.images.get(build.plan["edits"])
    return str(images.editor.begin(source, build.id))


@step(23, "Change the files", undo=remove_edit)
def change_files(
    build: Build, edit_request: EditRequest, images: ImageStore, store: StateStore
) -> str:
    """Remove, generalise and put in what was asked for, and read it back.

    The way in is chosen by what this host has and by whether the image is trusted: the host's
    kernel mounts no file system that was not made here. Here Nova has `nova.virt.disk.vfs`
    (libguestfs, once also loop and NBD).
    """
    request = edit_request
    source = store.images.get(build.plan["edits"])
    wanted: list[Change] = [Remove(path) for path in request.remove]
    wanted += [Put(file.path, file.content, file.mode) for file in request.inject]
    way = images.editor.change(
        build.id,
        wanted,
        generalise=request.generalise,
        trusted=is_trusted(store, source),
        method=Method(request.method) if request.method else None,
        look=lambda guest: _note_cloud_init(build, images, store, guest),
    )
    return str(way)


def _note_cloud_init(build: Build, images: ImageStore, store: StateStore, guest: Access) -> None:
    """Note what the changed image's cloud-init is, for the user data of its VMs."""
    try:
        seen = images.keep_cloud_init(build.id, guest)
    except UnsafeImage as error:
        get_run_logger().warning("the image's cloud-init cannot be read: %s", error)
        return
    store.builds.note(build.id, cloud_init=seen and seen.model_dump(mode="json"))


@step(24, "Finish the new image")
def finish_edit(build: Build, images: ImageStore, store: StateStore) -> dict[str, Any]:
    """Flatten it into the store, inspected as what it is now."""
    with telling("compressing", build.name) as meter:
        document = images.editor.finish(build.id, meter.percent).model_dump(mode="json")
    store.builds.note(build.id, edited=document)
    return document


@step(25, "Record the new image", undo=forget_image)
def record_edit(build: Build, caller: Caller, edit_request: EditRequest, store: StateStore) -> str:
    """Record it in the catalogue: what the image says of itself, with the new one's checksum.

    It is its maker's alone, has no certificate, and no recipe builds it anew.
    """
    made = StoredImage.model_validate(build.plan["edited"])
    source = store.images.get(build.plan["edits"])
    seen = build.plan.get("cloud_init")
    store.images.put(
        source.model_copy(
            update={
                **made.model_dump(),
                "path": str(made.path),
                "id": build.id,
                "tenant_id": caller.tenant_id,
                "name": edit_request.name,
                "version": edit_request.version,
                "visibility": "private",
                "shared_with": (),
                "recipe": None,
                "built_at": now(),
                "parent_id": source.id,
                "source": f"{EDIT_OF}{source.name}",
                "certificate": None,
                "report": {"cloud_init": seen} if seen else None,
                "deactivation": None,
            }
        )
    )
    return build.id

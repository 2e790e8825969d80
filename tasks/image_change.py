"""Changes to an image's record: withdrawn and let in again, shared, described."""

from __future__ import annotations

from collections.abc import Sequence

from blocks.errors import Conflict, Denied
from blocks.resources import ImageChange
from blocks.resources.image import Deactivation
from blocks.state import Caller
from blocks.state.tables.base import now
from blocks.world import World
from tasks.image_origin import own_image
from tasks.one_change import Changes
from tasks.policy import check_policy

_SETTABLE = ("min_disk_gib", "min_ram_mib", "os", "login_user", "injectable")


def _wrong(request: ImageChange) -> Sequence[str]:
    wrong = []
    if request.action == "deactivate" and not request.why:
        wrong.append("why: is missing; whoever wants to use the image is told it")
    if request.action in ("share", "unshare") and request.tenant is None:
        wrong.append("tenant: is missing")
    return wrong


def deactivate(world: World, caller: Caller, request: ImageChange) -> str:
    """Let no new VM be made from it; those that there are go on. As Glance's deactivate."""
    image = own_image(world.store, caller, request.name)
    if image.status != "active":
        return f"{image.reference} is {image.status} already"
    by = f"{caller.tenant} ({caller.role})"
    told = Deactivation(by=by, why=request.why or "", at=now())
    world.store.images.change(image.id, status="deactivated", deactivation=told.model_dump())
    return f"{image.reference} is deactivated"


def activate(world: World, caller: Caller, request: ImageChange) -> str:
    """Let new VMs be made from it again.

    Raises:
        Conflict: Another image replaced it.
        Denied: An admin withdrew it, and the caller is none.
    """
    image = own_image(world.store, caller, request.name)
    if image.status == "active":
        return f"{image.reference} is active already"
    if image.deactivation is None:
        raise Conflict(f"the image {image.reference!r} was replaced by another one")
    if image.deactivation.by.endswith("(admin)") and caller.role != "admin":
        raise Denied(
            f"an admin deactivated {image.reference!r}: {image.deactivation.why}",
            hint="ask an admin",
        )
    world.store.images.change(image.id, status="active", deactivation=None)
    return f"{image.reference} is active"


def share(world: World, caller: Caller, request: ImageChange) -> str:
    """Let one more tenant use it. As a member of an image in Glance."""
    image = own_image(world.store, caller, request.name)
    other = world.store.tenants.id_of(request.tenant or "")
    if other == image.tenant_id:
        raise Conflict(f"the image {image.reference!r} is {request.tenant}'s own")
    if image.visibility == "public":
        raise Conflict(f"the image {image.reference!r} is public: every tenant can use it")
    shared = tuple(sorted({*image.shared_with, other}))
    world.store.images.change(image.id, visibility="shared", shared_with=shared)
    return f"{image.reference} is shared with {request.tenant}"


def unshare(world: World, caller: Caller, request: ImageChange) -> str:
    """Let a tenant use it no more; what it has made from it stays."""
    image = own_image(world.store, caller, request.name)
    other = world.store.tenants.id_of(request.tenant or "")
    left = tuple(one for one in image.shared_with if one != other)
    visibility = image.visibility if left or image.visibility != "shared" else "private"
    world.store.images.change(image.id, visibility=visibility, shared_with=left)
    return f"{image.reference} is not shared with {request.tenant}"


def describe_image(world: World, caller: Caller, request: ImageChange) -> str:
    """Set what is said of it; only what the request names."""
    image = own_image(world.store, caller, request.name)
    fields = {field: value for field in _SETTABLE if (value := getattr(request, field)) is not None}
    if request.visibility is not None:
        if request.visibility == "public":
            check_policy(caller, "image:create:public")
        fields |= {"visibility": request.visibility, "shared_with": ()}
    properties = {**image.properties, **request.properties}
    fields["properties"] = {name: value for name, value in properties.items() if value}
    world.store.images.change(image.id, **fields)
    return f"{image.reference} is changed"


IMAGE_CHANGES = Changes(
    word="image",
    model=ImageChange,
    policy="image:change",
    wrong=_wrong,
    actions={
        "deactivate": deactivate,
        "activate": activate,
        "share": share,
        "unshare": unshare,
        "set": describe_image,
    },
)

"""Which image a request is about, and whether all that ever wrote to it is trusted."""

from __future__ import annotations

from blocks.errors import Conflict, Denied, NotFound
from blocks.resources import Image
from blocks.state import Caller, StateStore
from tasks.policy import allows

#: An edit of an edit of an edit: longer chains are not followed.
_LONGEST = 32
#: How the source of an edited image begins; users do not write that field.
EDIT_OF = "edit of "


def find_image(store: StateStore, caller: Caller, word: str) -> Image:
    """The image of a name or an id, the tenant's own before a public one.

    Raises:
        NotFound: The tenant can see none.
    """
    for image in store.images.list(caller.tenant_id):
        if image.id == word:
            return image
    return store.images.find(caller.tenant_id, word)


def own_image(store: StateStore, caller: Caller, word: str) -> Image:
    """The image of a name or an id, if the caller may change what is said of it.

    Raises:
        NotFound: There is none that the caller can see.
        Denied: It is another tenant's.
    """
    foreign = allows(caller, "any:foreign")
    if foreign:
        for image in store.images.list(None):
            if image.id == word:
                return image
    image = find_image(store, caller, word)
    if image.tenant_id != caller.tenant_id and not foreign:
        raise Denied(f"the image {word!r} is another tenant's", hint="ask its owner")
    return image


def require_active(image: Image) -> None:
    """Check that new things may be made of an image.

    Raises:
        Conflict: It was deactivated.
    """
    if image.status != "active":
        raise Conflict(f"the image {image.name!r} is {image.status}", hint="`fifty image list`")


def is_trusted(store: StateStore, image: Image) -> bool:
    """Whether an image was built here by a recipe, or is an edit of one that was.

    What was imported, or was a running VM's disk, may hold a file system that was made to
    attack whoever mounts it.
    """
    for _ in range(_LONGEST):
        if image.recipe is not None:
            return True
        if image.parent_id is None or image.source is None:
            return False
        if not image.source.startswith(EDIT_OF):
            return False
        try:
            image = store.images.get(image.parent_id)
        except NotFound:
            return False
    return False

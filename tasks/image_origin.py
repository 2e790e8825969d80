"""Which image a request is about, and whether all that ever wrote to it is trusted."""

from __future__ import annotations

from blocks.errors import Conflict, NotFound
from blocks.resources import Image
from blocks.state import Caller, StateStore

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

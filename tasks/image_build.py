"""The build of an image: its steps, and everything that they can ask for by name."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from prefect import get_run_logger

from blocks.errors import Conflict, InvalidRequest
from blocks.images import ImageStore, Recipe
from blocks.images.recipe import recorded_recipe
from blocks.resources import CaptureRequest, EditRequest, Image, ImageRequest, ImportRequest
from blocks.state import Build, Caller, StateStore
from blocks.state.tables.base import now
from tasks.access import admitted
from tasks.draft import describe_all
from tasks.ends import Kind
from tasks.image_names import named
from tasks.policy import allows, check_policy
from tasks.step import Catalogue
from tasks.subject import BuildSubject


class ImageBuild(BuildSubject):
    """One image's build; the image's id is the build's."""

    def settle(self, state: str, fault: dict[str, Any] | None) -> str:
        """Say how the build stands (see `Buildable`).

        Raises:
            Conflict: It is to be deleted while a VM was made from it.
        """
        del fault
        if state == "deleting":
            self.store.images.refuse_if_used(self.build_id)
        return f"{self.build.name} is {state}"

    @cached_property
    def request(self) -> ImageRequest:
        """The request, valid (from step 2 on)."""
        return ImageRequest.model_validate(self.build.request)

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe as it was when it was asked for (from step 2 on)."""
        noted = self.build.plan.get("recipe")
        if noted is None:  # The build began before recipes were recorded.
            return self.images.recipes.find(self.request.recipe)
        return recorded_recipe(noted)

    @cached_property
    def import_request(self) -> ImportRequest:
        """The request of an import, valid (from step 12 on)."""
        return ImportRequest.model_validate(self.build.request)

    @cached_property
    def edit_request(self) -> EditRequest:
        """The request of an edit, valid (from step 22 on)."""
        return EditRequest.model_validate(self.build.request)

    @cached_property
    def capture_request(self) -> CaptureRequest:
        """The request of a capture, valid (from step 42 on)."""
        return CaptureRequest.model_validate(self.build.request)


IMAGE = Catalogue("image", ImageBuild)
IMAGE_KIND = Kind("image", IMAGE, ImageBuild)
step = IMAGE.stage("I")


@step(1, "Validate the image request")
def validate_image(
    build: Build, form: dict[str, Any], images: ImageStore, store: StateStore
) -> str:
    """Look at the whole request: the caller, the recipe, and that the name is free.

    The recipe is recorded with the build, its files included: whatever becomes of its folder,
    that is what is built. The site's own recipes are root's, and so as good as those that
    come with Fifty Steps: whoever may build images may build by them. A build runs packages'
    scripts as root, so any other folder is an admin's to name.
    """
    caller = admitted(build, store, "image:create")
    wrong = describe_all(ImageRequest, form)
    if wrong:
        raise InvalidRequest("the image request is wrong", details=wrong)
    request = ImageRequest.model_validate(form)
    recipe = _recipe(request, caller, images)
    store.builds.note(build.id, recipe=recipe.model_dump(mode="json"))
    name = request.name or request.recipe
    store.builds.update(build.id, name=name)
    if there := named(build, store, caller, name):
        store.builds.note(build.id, replaces=_replaceable(there[0], request))
    return name


def _recipe(request: ImageRequest, caller: Caller, images: ImageStore) -> Recipe:
    """The recipe that is asked for.

    Raises:
        NotFound: There is none.
        InvalidRequest: It is wrong.
        Denied: It is in a folder of its own, and the caller is no admin.
    """
    if request.folder is None:
        return images.recipes.find(request.recipe)
    check_policy(caller, "image:create:folder")
    found = images.recipes.read(Path(request.folder))
    if found.name != request.recipe:
        raise InvalidRequest(f"the recipe in {request.folder} is called {found.name!r}")
    return found


def _replaceable(image: Image, request: ImageRequest) -> str:
    """The id of the image that a new one takes the name of.

    Raises:
        Conflict: It is to stay, or is not what this recipe builds.
    """
    if not request.rebuild:
        raise Conflict(
            f"an image named {image.name!r} is there already",
            hint=f"`fifty image build {request.recipe} --rebuild` replaces it",
        )
    if image.recipe != request.recipe or image.status != "active":
        made = f"built by the recipe {image.recipe!r}" if image.recipe else "not built by a recipe"
        raise Conflict(
            f"the image {image.name!r} is {image.status}, and was {made}",
            hint=f"`fifty image delete {image.name}` first, or give the new one another name",
        )
    return image.id


def remove_file(build: Build, images: ImageStore) -> None:
    """Remove the image's file, whole or begun."""
    images.remove_image(build.id)


@step(2, "Build the image", undo=remove_file)
def build_file(
    build: Build, recipe: Recipe, images: ImageStore, store: StateStore
) -> dict[str, Any]:
    """Build the image's file by its recipe: packages, boot loader, first-boot software."""
    built = images.build(recipe, build.id, get_run_logger().info)
    document = built.model_dump(mode="json")
    store.builds.note(build.id, built=document)
    return document


def forget_image(build: Build, store: StateStore) -> None:
    """Forget the image's record; where its build is undone, the one it replaced is back."""
    if build.state == "deleting":
        store.images.delete(build.id)
    else:
        store.images.withdraw(build.id, build.plan.get("replaces"))


@step(3, "Record the image", undo=forget_image)
def record_image(build: Build, caller: Caller, recipe: Recipe, store: StateStore) -> str:
    """Record the image in the catalogue, with checksum and sizes: it is active now.

    Here Glance keeps the record and the data apart (`glance.api.v2.images`). Where it
    replaces another one, that one is deactivated in the same transaction: there is no
    moment without an image of this name.
    """
    document = dict(build.plan["built"])
    cloud_init = document.pop("cloud_init", None)
    store.images.put(
        Image(
            **document,
            id=build.id,
            tenant_id=caller.tenant_id,
            name=build.name,
            visibility="public" if allows(caller, "image:create:public") else "private",
            recipe=recipe.name,
            source=f"recipe {recipe.name}, SHA-256 {recipe.sha256}",
            built_at=now(),
            report={"cloud_init": cloud_init} if cloud_init else None,
        ),
        replaces=build.plan.get("replaces"),
    )
    return build.id

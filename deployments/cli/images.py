"""`fifty image`: build, look at and delete images."""

from __future__ import annotations

from pathlib import Path

from blocks.resources.image import image_reference
from deployments.cli import documents, image_chains, image_views, output
from deployments.cli.context import AllTenants, Credentials, Flag, Json, request_of, require_root
from deployments.cli.detaching import Detach, send
from deployments.cli.flow_runs import run_flow
from deployments.cli.scope import open_scope, with_tenants

_HINT = "`fifty image build RECIPE` makes one"
_MIB = 1024**2
_GIB = 1024**3


def build(
    recipe: str,
    /,
    *,
    name: str | None = None,
    rebuild: Flag = False,
    detach: Detach = False,
    credentials: Credentials = None,
    json: Json = False,
) -> None:
    """Build an image by a recipe, such as micro or debian-12.

    Args:
        recipe: Which one (`fifty image recipes`), or the folder of an own one, as ./web.
        name: What the image is to be called (default: as the recipe).
        rebuild: Also if the image is there already: the new one takes its name when it is
            complete, and VMs that are there keep the old one.
    """
    folder = Path(recipe).absolute() if "/" in recipe else None
    recipe = folder.name if folder else recipe
    request = request_of(
        credentials,
        recipe=recipe,
        folder=str(folder) if folder else None,
        name=name,
        rebuild=rebuild or None,
    )
    if detach:
        send("build-image", request, json=json, look="fifty image list")
        return
    require_root("building an image")
    if not json:
        output.note(f"Building {output.plain(name or recipe)}; this takes some minutes at first.")
    run_flow("build_image", request).require_success()
    _tell(name or recipe, credentials, json=json)


def list(
    *,
    replaced: Flag = False,
    all_tenants: AllTenants = False,
    credentials: Credentials = None,
    json: Json = False,
) -> None:
    """List the images: the tenant's, and the public ones.

    Args:
        replaced: Also those that a newer one has replaced, and that VMs still run on.
    """
    scope = open_scope(credentials)
    images = [
        image
        for image in scope.store.images.list(scope.tenant(all_tenants=all_tenants))
        if replaced or image.status != "deactivated" or image.deactivation is not None
    ]
    found = with_tenants(scope, [documents.image(image) for image in images], all_tenants)
    if json:
        output.document(found)
        return
    output.things(
        ("NAME", "STATUS", "FORMAT", "SIZE", "DISK", "LOGIN", "VISIBILITY"),
        (
            (
                image_reference(item["name"], item["version"]),
                item["status"],
                item["format"],
                f"{item['size_bytes'] / _MIB:.1f} MiB",
                f"{item['virtual_size_bytes'] / _GIB:.2f} GiB",
                item["login_user"],
                item["visibility"],
            )
            for item in found
        ),
        found,
        f"There is no image yet. {_HINT}.",
    )


def show(name: str, /, *, credentials: Credentials = None, json: Json = False) -> None:
    """Show an image: what is known of it, what it was made from, and what lies on it.

    Args:
        name: The image: NAME, NAME:VERSION or its id.
    """
    scope = open_scope(credentials)
    image = scope.image(name)
    found = {**documents.image(image), "chain": image_chains.chain(scope, image)}
    if json:
        output.document(found)
        return
    # Imported where something is drawn only: the others are quick without it.
    from deployments.cli import image_tree

    output.facts(image_views.facts(found))
    output.say()
    image_tree.draw(found)


def _tell(name: str, credentials: str | None, *, json: bool) -> None:
    image_views.tell(open_scope(credentials).image(name), json=json)


def delete(name: str, /, *, credentials: Credentials = None, json: Json = False) -> None:
    """Delete an image that no VM is made from.

    Args:
        name: The image: NAME, NAME:VERSION or its id.
    """
    require_root("deleting an image")
    request = request_of(credentials, name=name)
    run_flow("delete_image", request).require_success()
    if json:
        output.document({"name": name, "deleted": True})
    else:
        output.say(f"The image {output.plain(name)} is deleted.")

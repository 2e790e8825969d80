"""`fifty image`: build, look at and delete images."""

from __future__ import annotations

from deployments.cli import documents, output
from deployments.cli.context import (
    Credentials,
    Flag,
    Json,
    credentials_name,
    open_store,
    require_root,
    the_one,
)
from deployments.cli.flow_runs import run_flow

_HINT = "`fifty image build RECIPE` makes one"
_MIB = 1024**2
_GIB = 1024**3


def build(
    recipe: str,
    /,
    *,
    name: str | None = None,
    rebuild: Flag = False,
    credentials: Credentials = None,
    json: Json = False,
) -> None:
    """Build an image by a recipe, such as micro or debian-12.

    Args:
        recipe: Which one.
        name: What the image is to be called (default: as the recipe).
        rebuild: Also if the image is there already.
    """
    require_root("building an image")
    request: dict[str, object] = {"recipe": recipe, "credentials": credentials_name(credentials)}
    if name is not None:
        request["name"] = name
    if rebuild:
        request["rebuild"] = True
    if not json:
        output.note(f"Building {output.plain(name or recipe)}; this takes some minutes at first.")
    run_flow("build_image", request).require_success()
    _tell(name or recipe, json=json)


def list(*, json: Json = False) -> None:
    """List the images."""
    found = [documents.image(image) for image in open_store().images.list(None)]
    if json:
        output.document(found)
        return
    output.table(
        ("NAME", "STATUS", "FORMAT", "SIZE", "DISK", "LOGIN", "VISIBILITY"),
        (
            (
                item["name"],
                item["status"],
                item["format"],
                f"{item['size_bytes'] / _MIB:.1f} MiB",
                f"{item['virtual_size_bytes'] / _GIB:.2f} GiB",
                item["login_user"],
                item["visibility"],
            )
            for item in found
        ),
        f"There is no image yet. {_HINT}.",
    )


def show(name: str, /, *, json: Json = False) -> None:
    """Show an image.

    Args:
        name: The image's name or id.
    """
    _tell(name, json=json)


def _tell(name: str, *, json: bool) -> None:
    store = open_store()
    found = documents.image(the_one("image", name, store.images.list(None), _HINT))
    if json:
        output.document(found)
    else:
        output.facts((field.replace("_", " "), value) for field, value in found.items())


def delete(name: str, /, *, credentials: Credentials = None, json: Json = False) -> None:
    """Delete an image that no VM was made from.

    Args:
        name: The image's name.
    """
    require_root("deleting an image")
    request = {"name": name, "credentials": credentials_name(credentials)}
    run_flow("delete_image", request).require_success()
    if json:
        output.document({"name": name, "deleted": True})
    else:
        output.say(f"The image {output.plain(name)} is deleted.")

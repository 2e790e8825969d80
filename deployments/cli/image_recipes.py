"""`fifty image recipes`: what images can be built by."""

from __future__ import annotations

from blocks.images.recipe_book import Entry, RecipeBook
from blocks.settings import settings
from deployments.cli import output
from deployments.cli.context import Json


def recipes(*, json: Json = False) -> None:
    """List the recipes that images can be built by: ours, and the site's own.

    The site's own are in FIFTY_HOME/recipes, a folder each.
    """
    found = [_recipe(entry) for entry in RecipeBook(settings().recipes).entries()]
    if json:
        output.document(found)
        return
    output.things(
        ("NAME", "OWN", "KIND", "LOGIN", "TITLE"),
        (
            (
                item["name"],
                "yes" if item["own"] else "no",
                item["kind"] or "-",
                item["login_user"] or "-",
                item["wrong"] or item["title"],
            )
            for item in found
        ),
        found,
        "There is none.",
    )


def _recipe(entry: Entry) -> dict[str, object]:
    """A recipe as it is told of."""
    said = entry.recipe
    return {
        "name": entry.name,
        "title": said.title if said else "",
        "own": entry.own,
        "folder": str(entry.folder),
        "kind": said.kind if said else None,
        "base": said.base if said else None,
        "suite": getattr(said, "suite", None),
        "login_user": said.login_user if said else None,
        "sha256": said.sha256 if said else None,
        "wrong": entry.wrong,
    }

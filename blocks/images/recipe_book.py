"""Finding and reading recipes: those that come with Fifty Steps, and a site's own.

A site's own are folders in `FIFTY_HOME/recipes`, root's as everything there. A recipe may
have a `base`: it says then only what is different. What it says takes the place of what its
base says; lists are added to the base's; a file in its folder stands for the base's file of
the same name.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from blocks.errors import FiftyError, InvalidRequest, NotFound
from blocks.images.recipe import Recipe, valid_recipe

RECIPES = Path(__file__).parent / "recipes"
RECIPE_FILE = "recipe.toml"
_LONGEST_RECIPE = 64 * 1024
#: All files of a recipe together: they are recorded with each build.
_LONGEST_IN_ALL = 512 * 1024
_MOST_BASES = 8
#: Lists that are added to the base's; `kernel` and `components` take the place of the base's.
_ADDED = (
    *("packages", "files", "early_files", "links", "programs", "early_modules"),
    *("late_modules", "masked_units", "masked_generators", "enabled_units"),
)
#: What a recipe does not take over from its base.
_ITS_OWN = ("name", "title", "base", "contents")


@dataclass(frozen=True)
class Entry:
    """A recipe that can be built by, or what is wrong with it.

    Attributes:
        name: What it is built by.
        own: Whether it is the site's own.
        folder: Where it is.
        recipe: What it says; None where it is wrong.
        wrong: What is wrong with it.
    """

    name: str
    own: bool
    folder: Path
    recipe: Recipe | None
    wrong: str = ""


class RecipeBook:
    """The recipes that there are.

    Args:
        own: The folder of the site's own recipes; need not be there.
    """

    def __init__(self, own: Path | None = None) -> None:
        self._own = own

    def names(self) -> list[str]:
        """What they are called, right or wrong."""
        return sorted(self._folders())

    def entries(self) -> list[Entry]:
        """All of them, by name, and what is wrong with each."""
        return [self._entry(name, *where) for name, where in sorted(self._folders().items())]

    def find(self, name: str) -> Recipe:
        """The recipe of that name.

        Raises:
            NotFound: There is none; the hint names those there are.
            InvalidRequest: It is wrong; the details name each field.
        """
        return self._find(name, ())

    def read(self, folder: Path) -> Recipe:
        """The recipe of a folder that is nowhere in the book.

        Raises:
            NotFound: It is not there.
            InvalidRequest: It is wrong; the details name each field.
        """
        return self._read(folder, (), roots=False)

    def _entry(self, name: str, folder: Path, own: bool) -> Entry:
        try:
            return Entry(name, own, folder, self.find(name))
        except FiftyError as error:
            return Entry(name, own, folder, None, "; ".join((error.message, *error.details)))

    def _folders(self) -> dict[str, tuple[Path, bool]]:
        """Each recipe's folder, and whether it is the site's own."""
        own = self._own if self._own is not None and os.access(self._own, os.R_OK) else None
        found = {}
        for parent in (own, RECIPES):
            for folder in parent.iterdir() if parent else ():
                if (folder / RECIPE_FILE).is_file():
                    found[folder.name] = (folder, parent is own)
        return found

    def _find(self, name: str, above: tuple[str, ...]) -> Recipe:
        folders = self._folders()
        if name not in folders:
            raise NotFound(
                f"there is no recipe {name!r}; there are: {', '.join(sorted(folders))}",
                hint="`fifty image recipes` tells of each",
            )
        folder, own = folders[name]
        if self._own is not None and not own and (self._own / name / RECIPE_FILE).is_file():
            raise InvalidRequest(
                f"the recipe {self._own / name} is called as one that comes with Fifty Steps",
                hint="give its folder another name",
            )
        return self._read(folder, above, roots=own)

    def _read(self, folder: Path, above: tuple[str, ...], *, roots: bool) -> Recipe:
        """Read a recipe, its bases first.

        Args:
            folder: Its folder.
            above: The recipes that this one is a base of.
            roots: Nobody but root may be able to change it.
        """
        path = folder / RECIPE_FILE
        with _opened(folder, roots) as handle:
            said = _parsed(path, _content(handle, path, _LONGEST_RECIPE, roots))
            if "contents" in said:
                raise _invalid(path, "contents: no key of a recipe")
            if said.setdefault("name", folder.name) != folder.name:
                raise _invalid(path, f"name: has to be the folder's, {folder.name}")
            base = self._base(path, said.get("base"), (*above, folder.name))
            recipe = _validated(path, _on_base(said, base))
            contents = dict(base.contents) if base else {}
            for source in recipe.sources:
                if source not in contents or _is_there(handle, source):
                    contents[source] = _content(handle, folder / source, _LONGEST_IN_ALL, roots)
        contents = {source: contents[source] for source in sorted(recipe.sources)}
        if sum(map(len, contents.values())) > _LONGEST_IN_ALL:
            raise InvalidRequest(
                f"the files of the recipe {path} have more than {_LONGEST_IN_ALL // 1024} KiB",
                hint="`fifty image edit` puts large files into an image",
            )
        return recipe.model_copy(update={"contents": contents})

    def _base(self, path: Path, name: object, above: tuple[str, ...]) -> Recipe | None:
        if name is None:
            return None
        if not isinstance(name, str):
            raise _invalid(path, "base: has to be a recipe's name")
        if name in above or len(above) > _MOST_BASES:
            raise _invalid(path, f"base: {' -> '.join((*above, name))} has no end")
        return self._find(name, above)


def _invalid(path: Path, *details: str) -> InvalidRequest:
    return InvalidRequest(f"the recipe {path} is not valid", details=list(details))


def _on_base(said: dict[str, Any], base: Recipe | None) -> dict[str, Any]:
    """What a recipe and its base say together."""
    if base is None:
        return said
    told = base.model_dump(mode="json", exclude=set(_ITS_OWN))
    added = {
        key: [*told[key], *said[key]]
        for key in _ADDED
        if key in told and isinstance(said.get(key), list)
    }
    return told | said | added


def _parsed(path: Path, content: bytes) -> dict[str, Any]:
    try:
        return tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"the recipe {path} is not TOML: {error}") from error


def _validated(path: Path, said: dict[str, Any]) -> Recipe:
    try:
        return valid_recipe(said)
    except ValidationError as error:
        details = [
            f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()
        ]
        raise _invalid(path, *details) from error


@contextmanager
def _opened(folder: Path, roots: bool) -> Iterator[int]:
    """A recipe's folder, open; one of the site's own is no link to elsewhere."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        handle = os.open(folder, flags | (os.O_NOFOLLOW if roots else 0))
    except OSError as error:
        raise NotFound(
            f"the recipe's folder {folder} cannot be opened: {error.strerror}",
            hint="a recipe is a folder with `recipe.toml` in it",
        ) from error
    try:
        if roots:
            _require_roots(folder.parent, folder.parent.stat())
            _require_roots(folder, os.fstat(handle))
        yield handle
    finally:
        os.close(handle)


def _is_there(handle: int, name: str) -> bool:
    return name in os.listdir(handle)


def _content(handle: int, path: Path, longest: int, roots: bool) -> bytes:
    """What is in a file of an open folder: a file of its own, and no link to another.

    Raises:
        InvalidRequest: It is not there, no file, too long, or others than root may change it.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        opened = os.open(path.name, flags, dir_fd=handle)
    except OSError as error:
        raise InvalidRequest(
            f"the recipe's file {path} cannot be opened: {error.strerror}",
            hint="files of a recipe are in its folder, and no links",
        ) from error
    with os.fdopen(opened, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_size > longest:
            raise InvalidRequest(
                f"the recipe's file {path} is no file, or has more than {longest // 1024} KiB"
            )
        if roots:
            _require_roots(path, found)
        return file.read(longest)


def _require_roots(path: Path, found: os.stat_result) -> None:
    """Check that nobody else can change what packages' scripts are run by, as root.

    Raises:
        InvalidRequest: Somebody can.
    """
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise InvalidRequest(
            f"others than root can change {path}",
            hint=f"`chown -R root: {path}` and `chmod -R go-w {path}`",
        )

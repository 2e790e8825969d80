"""The packages that the image `micro` is made of, for machines that have no mirror."""

from __future__ import annotations

import shutil
from pathlib import Path

from blocks.images.packages import PackageSource
from blocks.images.recipe_book import RecipeBook

#: An environment variable: the directory with what was fetched. Not set where there is a mirror.
VARIABLE = "TESTS_PACKAGES"


def fetch(directory: Path) -> Path:
    """Download them with this host's apt; the directory below this one that holds them.

    Raises:
        FiftyError: They cannot be had.
    """
    recipe, source = RecipeBook().find("micro"), PackageSource(directory)
    source.with_dependencies(recipe.packages)
    source.kernel(recipe.kernel)
    return directory / "archives"


def give(archives: Path, home: Path) -> None:
    """Put what was fetched where a FIFTY_HOME without images looks before it downloads."""
    kept = home / "images" / "packages"
    for directory in (kept.parent, kept):
        directory.mkdir(mode=0o711)
    shutil.copytree(archives, kept / "archives")

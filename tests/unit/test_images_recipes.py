"""Recipes: what comes with us is whole; what a person gets wrong is told by field."""

from __future__ import annotations

from pathlib import Path

import pytest

from blocks.errors import InvalidRequest, NotFound
from blocks.images.recipe import RECIPES, all_recipes, find_recipe, read_recipe


def test_each_recipe_has_all_its_files_and_no_other() -> None:
    recipes = all_recipes()
    assert [recipe.name for recipe in recipes] == ["debian-12", "micro"]
    for recipe in recipes:
        assert recipe.folder.name == recipe.name
        named = {file.source for file in recipe.files} | {"recipe.toml"}
        named |= {file.source for file in getattr(recipe, "early_files", ())}
        if recipe.kind == "busybox":
            named.add("initrd.sh")
        assert {path.name for path in recipe.folder.iterdir()} == named


def test_unknown_recipe_is_not_found_and_the_hint_names_the_others() -> None:
    with pytest.raises(NotFound) as caught:
        find_recipe("windows-11")
    assert "debian-12, micro" in caught.value.hint


@pytest.mark.parametrize(
    ("added", "field"),
    [
        ('colour = "red"\n', "colour"),
        ("title = 3\n", "title"),
        ('programs = ["../../etc/shadow"]\n', "programs"),
        ('packages = ["-o=x"]\n', "packages"),
        ("disk_mib = 99999999\n", "disk_mib"),
        ('kind = "sh"\n', "kind"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, added: str, field: str) -> None:
    lines = (RECIPES / "micro" / "recipe.toml").read_text().splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith(f"{field} =")]
    (tmp_path / "recipe.toml").write_text(added + "".join(kept))
    with pytest.raises(InvalidRequest) as caught:
        read_recipe(tmp_path)
    assert any(field in line for line in caught.value.details)


def test_what_is_not_toml_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_bytes(b"\xff= [")
    with pytest.raises(InvalidRequest):
        read_recipe(tmp_path)


def test_no_recipe_names_a_package_source() -> None:
    for path in RECIPES.rglob("*"):
        if path.is_file():
            assert "://" not in path.read_text(), path

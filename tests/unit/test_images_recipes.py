"""Recipes: what comes with us is whole; a site's own are read safely, and what is wrong is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from blocks.errors import FiftyError, InvalidRequest, NotFound
from blocks.images.inside_tree import place_of
from blocks.images.recipe import DebianRecipe, RecipeFile, recorded_recipe
from blocks.images.recipe_book import RECIPES, RecipeBook

SHIPPED = ["debian-12", "debian-13", "micro", "ubuntu"]
OWN = """base = "debian-12"
name = "web"
title = "Debian with a web server"
login_user = "ops"
packages = ["nginx-light"]

[[files]]
source = "index.html"
path = "var/www/html/index.html"
"""


@pytest.fixture(name="own")
def _own(tmp_path: Path) -> Path:
    folder = tmp_path / "recipes"
    folder.mkdir()
    return folder


def put(own: Path, name: str, text: str, **files: str) -> Path:
    """An own recipe with the files that it names (`_` for the dot in a file's name)."""
    folder = own / name
    folder.mkdir()
    (folder / "recipe.toml").write_text(text)
    for file, content in files.items():
        (folder / file.replace("_", ".")).write_text(content)
    return folder


def wrong(own: Path, name: str) -> str:
    """What is told of a recipe that is refused."""
    with pytest.raises(InvalidRequest) as caught:
        RecipeBook(own).find(name)
    return "\n".join((caught.value.message, *caught.value.details))


def test_each_recipe_has_all_its_files_and_no_other() -> None:
    for entry in RecipeBook().entries():
        assert entry.recipe is not None, entry.wrong
        assert not entry.own
        assert entry.name == entry.folder.name == entry.recipe.name
        bases, base = [entry.folder], entry.recipe.base
        while base is not None:
            bases.append(RECIPES / base)
            base = RecipeBook().find(base).base
        there = [{path.name for path in folder.iterdir()} for folder in bases]
        assert there[0] <= entry.recipe.sources | {"recipe.toml"}
        assert set(entry.recipe.contents) == entry.recipe.sources <= set().union(*there)
    assert [entry.name for entry in RecipeBook().entries()] == SHIPPED


def test_a_recipe_says_only_what_its_base_does_not() -> None:
    twelve, thirteen, ubuntu = (
        RecipeBook().find(name) for name in ("debian-12", "debian-13", "ubuntu")
    )
    told = [
        one.model_dump(exclude={"name", "title", "base", "suite"}) for one in (twelve, thirteen)
    ]
    assert told[0] == told[1]
    assert isinstance(thirteen, DebianRecipe)
    assert isinstance(ubuntu, DebianRecipe)
    assert (thirteen.suite, thirteen.login_user) == ("trixie", "debian")
    assert (ubuntu.suite, ubuntu.login_user) == ("noble", "ubuntu")
    assert ubuntu.kernel == ("linux-image-virtual", "initramfs-tools")
    assert len({one.sha256 for one in (twelve, thirteen, ubuntu)}) == 3


def test_a_sites_own_recipe_is_ten_lines(own: Path) -> None:
    put(own, "web", OWN, index_html="hello\n", sources_list="# mine\n")
    found = RecipeBook(own).find("web")
    base = RecipeBook().find("debian-12")
    assert found.packages == (*base.packages, "nginx-light")
    assert found.files == (
        *base.files,
        RecipeFile(source="index.html", path="var/www/html/index.html"),
    )
    assert (found.login_user, found.disk_mib) == ("ops", base.disk_mib)
    assert found.contents["index.html"] == b"hello\n"
    # A file in its folder stands for the base's of that name.
    assert found.contents["sources.list"] == b"# mine\n"
    assert found.contents["cloud.cfg"] == base.contents["cloud.cfg"]
    assert [(one.name, one.own, one.wrong) for one in RecipeBook(own).entries()] == [
        *((name, False, "") for name in SHIPPED),
        ("web", True, ""),
    ]


def test_a_recipe_on_an_own_recipe(own: Path) -> None:
    put(own, "web", OWN, index_html="hello\n")
    put(own, "shop", 'base = "web"\npackages = ["php-fpm"]\n', index_html="buy\n")
    found = RecipeBook(own).find("shop")
    assert found.packages[-2:] == ("nginx-light", "php-fpm")
    assert (found.name, found.title, found.login_user) == ("shop", "", "ops")
    assert found.contents["index.html"] == b"buy\n"


def test_what_is_recorded_is_all_of_it(own: Path) -> None:
    folder = put(own, "web", OWN, index_html="hello\n")
    before = RecipeBook(own).find("web")
    document = before.model_dump(mode="json")
    (folder / "index.html").write_text("other\n")
    assert RecipeBook(own).find("web").sha256 != before.sha256
    again = recorded_recipe(document)
    assert again == before
    assert again.contents["index.html"] == b"hello\n"


def test_unknown_recipe_is_not_found_and_the_message_names_the_others(own: Path) -> None:
    put(own, "web", OWN, index_html="")
    with pytest.raises(NotFound) as caught:
        RecipeBook(own).find("windows-11")
    assert "debian-12, debian-13, micro, ubuntu, web" in caught.value.message


@pytest.mark.parametrize(
    ("added", "field"),
    [
        ('colour = "red"\n', "colour"),
        ("title = 3\n", "title"),
        ('title = "a\\u001b[31m"\n', "title"),
        ('programs = ["../../etc/shadow"]\n', "programs"),
        ('packages = ["-o=x"]\n', "packages"),
        ('packages = "nginx"\n', "packages"),
        ("disk_mib = 99999999\n", "disk_mib"),
        ('kind = "sh"\n', "kind"),
        ('login_user = "a b"\n', "login_user"),
        ('ready_marker = "("\n', "ready_marker"),
        ('kernel_options = "a\\nb"\n', "kernel_options"),
        ('contents = {"init.sh" = "eA=="}\n', "contents"),
        ("base = 3\n", "base"),
        ('name = "other"\n', "name"),
        ('late_modules = ["../button"]\n', "late_modules"),
        ('[[files]]\nsource = "init.sh"\npath = "x"\nowner = "root"\n', "owner"),
    ],
)
def test_a_wrong_field_is_named(own: Path, added: str, field: str) -> None:
    put(own, "mine", added if field == "base" else f'base = "micro"\n{added}')
    assert field in wrong(own, "mine").partition("\n")[2]


@pytest.mark.parametrize("key", ["source", "path"])
@pytest.mark.parametrize("name", ["../init.sh", "/etc/shadow", "..", ".", "a/../../b", "", "a\nb"])
def test_file_names_that_lead_out_of_the_folder_are_refused(own: Path, key: str, name: str) -> None:
    file = {"source": "init.sh", "path": "etc/x"} | {key: name}
    lines = [f"{one} = '''{value}'''" for one, value in file.items()]
    put(own, "mine", "\n".join(['base = "micro"', "[[files]]", *lines]))
    assert f"files.9.{key}" in wrong(own, "mine")


def test_links_out_of_the_folder_are_refused(own: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("canary")
    folder = put(own, "web", OWN)
    (folder / "index.html").symlink_to(secret)
    assert "index.html cannot be opened" in wrong(own, "web")
    (folder / "index.html").unlink()
    os.mkfifo(folder / "index.html")
    assert "is no file" in wrong(own, "web")
    (folder / "index.html").unlink()
    assert "index.html cannot be opened" in wrong(own, "web")

    put(tmp_path, "elsewhere", OWN, index_html="")
    (own / "elsewhere").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotFound, match="cannot be opened"):
        RecipeBook(own).find("elsewhere")


@pytest.mark.parametrize("what", ["..", ".", "recipe.toml", "index.html"])
def test_what_others_can_change_is_refused(own: Path, what: str) -> None:
    folder = put(own, "web", OWN, index_html="")
    assert RecipeBook(own).find("web").login_user == "ops"
    path = folder / what
    before = path.stat().st_mode
    for bits in (0o020, 0o002):
        path.chmod(before | bits)
        assert "others than root can change" in wrong(own, "web")
    # A folder that an admin names is theirs to answer for.
    assert RecipeBook(own).read(folder).name == "web"


def test_what_is_too_large_is_refused(own: Path) -> None:
    put(own, "web", OWN, index_html="x" * (512 * 1024 + 1))
    assert "has more than 512 KiB" in wrong(own, "web")
    (own / "web" / "index.html").write_text("x" * (512 * 1024 - 1))
    assert "more than 512 KiB" in wrong(own, "web")
    (own / "web" / "recipe.toml").write_text("#" * (64 * 1024 + 1))
    assert "has more than 64 KiB" in wrong(own, "web")


@pytest.mark.parametrize(
    "content",
    [
        b"\xff= [",
        b"a = " + b"[" * 20_000,
        b"disk_mib = " + b"9" * 5_000,
        b"a = 1\na = 2\n",
        b"a.b.c = 1\na.b = 3\n",
    ],
)
def test_what_is_not_toml_is_said_to_be_so(own: Path, content: bytes) -> None:
    put(own, "mine", "")
    (own / "mine" / "recipe.toml").write_bytes(content)
    assert "is not TOML" in wrong(own, "mine")
    [entry] = [one for one in RecipeBook(own).entries() if one.own]
    assert entry.recipe is None
    assert "is not TOML" in entry.wrong


def test_bases_that_have_no_end(own: Path) -> None:
    put(own, "a", 'base = "b"\n')
    put(own, "b", 'base = "a"\n')
    put(own, "c", 'base = "c"\n')
    for name in ("a", "b", "c"):
        assert "has no end" in wrong(own, name)
    for number in range(12):
        base = f"n{number - 1}" if number else "micro"
        put(own, f"n{number}", f'base = "{base}"\n')
    assert "has no end" in wrong(own, "n11")
    assert RecipeBook(own).find("n5").kind == "busybox"
    put(own, "d", 'base = "gone"\n')
    with pytest.raises(NotFound, match="gone"):
        RecipeBook(own).find("d")


def test_an_own_recipe_is_not_called_as_one_of_ours(own: Path) -> None:
    put(own, "micro", OWN, index_html="")
    assert "comes with Fifty Steps" in wrong(own, "micro")
    [entry] = [one for one in RecipeBook(own).entries() if one.wrong]
    assert entry.name == "micro"


@pytest.mark.parametrize("name", ["../recipes/web", "/etc", "", ".", ".."])
def test_a_name_is_no_path(own: Path, name: str) -> None:
    put(own, "web", OWN, index_html="")
    with pytest.raises(NotFound):
        RecipeBook(own).find(name)


def test_links_in_the_tree_never_lead_out_of_it(tmp_path: Path) -> None:
    """As a guest would follow them: Debian's `/var/run` leads to the guest's `/run`."""
    outside, tree = tmp_path / "outside", tmp_path / "tree"
    outside.mkdir()
    (tree / "usr" / "lib").mkdir(parents=True)
    (tree / "var").mkdir()
    links = {
        "lib": "usr/lib",
        "var/run": "/run",
        "var/out": str(outside),
        "up": "../../../../outside",
        "deep": "var/out/../../up/x",
        "etc-passwd": "/etc/passwd",
    }
    for path, target in links.items():
        (tree / path).symlink_to(target)
    assert place_of(tree, "lib/systemd/x") == tree / "usr" / "lib" / "systemd" / "x"
    assert place_of(tree, "var/run/x") == tree / "run" / "x"
    assert place_of(tree, "up/x") == tree / "outside" / "x"
    assert place_of(tree, "var/out/x") == tree / str(outside)[1:] / "x"
    for path in ("deep/x", "up/a/b", "var/out/a/b"):
        assert tree in place_of(tree, path).parents
    # The last part is what is replaced: a link itself, not what it leads to.
    assert place_of(tree, "etc-passwd") == tree / "etc-passwd"
    assert list(outside.iterdir()) == []
    (tree / "round").symlink_to("round")
    (tree / "file").write_text("")
    for path in ("round/x", "file/x", "usr/lib"):
        with pytest.raises(InvalidRequest):
            place_of(tree, path)


def test_a_recipes_files_and_links_stay_in_the_tree(own: Path, tmp_path: Path) -> None:
    put(own, "web", OWN, index_html="hello\n")
    recipe = RecipeBook(own).find("web")
    outside, tree = tmp_path / "outside", tmp_path / "tree"
    outside.mkdir()
    (tree / "var").mkdir(parents=True)
    (tree / "var" / "www").symlink_to(outside)
    recipe.copy_files(recipe.files[-1:], tree)
    assert list(outside.iterdir()) == []
    written = tree / str(outside)[1:] / "html/index.html"
    assert written.read_text() == "hello\n"


def test_no_recipe_names_a_package_source() -> None:
    for path in RECIPES.rglob("*"):
        if path.is_file():
            assert "://" not in path.read_text(), path


def test_entries_tell_of_all_errors_without_failing(own: Path) -> None:
    put(own, "bad", 'base = "micro"\ncolour = "red"\n')
    own_ones = [one for one in RecipeBook(own).entries() if one.own]
    assert [(one.name, one.recipe) for one in own_ones] == [("bad", None)]
    assert "colour" in own_ones[0].wrong
    assert issubclass(InvalidRequest, FiftyError)

"""A site's own recipes by the commands: listed, built by, recorded, refused, and whose they are."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.host.image_site import Site, _site  # noqa: F401 - the fixture `site`
from tests.image_maker import MIB, run

pytestmark = [pytest.mark.host, pytest.mark.slow]

RECIPE = """base = "micro"
name = "{name}"
title = "micro with a note"

[[files]]
source = "note.txt"
path = "etc/note"
"""


def write(parent: Path, name: str, note: str) -> Path:
    folder = parent / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.toml").write_text(RECIPE.format(name=name))
    (folder / "note.txt").write_text(note)
    return folder


def note_in(image: dict[str, Any], scratch: Path) -> str:
    raw = scratch / f"{image['id']}.raw"
    run("qemu-img", "convert", "-f", image["format"], "-O", "raw", image["path"], raw)
    try:
        return run("debugfs", "-R", "cat /etc/note", f"{raw}?offset={MIB}")
    finally:
        raw.unlink()


def test_the_recipe_is_what_it_was_when_it_was_asked_for(site: Site, tmp_path: Path) -> None:
    folder = write(site.home / "recipes", "noted", "as asked for\n")
    listed = {one["name"]: one for one in site.fifty("image", "recipes")}
    assert list(listed) == ["debian-12", "debian-13", "micro", "noted", "ubuntu"]
    said = listed["noted"]
    assert (said["own"], said["base"], said["title"]) == (True, "micro", "micro with a note")

    done = site.run("image", "build", "noted", FIFTY_FAULT="2:kill")
    assert done.returncode == -signal.SIGKILL, done.stderr
    # Between the request and its build: edited, and then gone.
    (folder / "note.txt").write_text("edited\n")
    edited = {one["name"]: one for one in site.fifty("image", "recipes")}["noted"]
    assert edited["sha256"] != said["sha256"]
    shutil.rmtree(folder)
    site.fifty("reconcile")
    image = site.fifty("image", "show", "noted")
    assert image["status"] == "active"
    assert note_in(image, tmp_path) == "as asked for\n"
    assert image["recipe"] == "noted"
    assert site.store.images.get(image["id"]).source == f"recipe noted, SHA-256 {said['sha256']}"
    assert image["login_user"] == "root"

    # Built anew it is as the recipe is by then.
    write(site.home / "recipes", "noted", "anew\n")
    again = site.fifty("image", "build", "noted", "--rebuild")
    assert again["id"] != image["id"]
    assert note_in(again, tmp_path) == "anew\n"
    assert {one["verdict"] for one in site.fifty("image", "check", "noted")["findings"]} == {"pass"}
    site.fifty("image", "delete", "noted")


def test_whose_recipes_they_are(site: Site, tmp_path: Path) -> None:
    site.fifty("tenant", "create", "guests")
    for role in ("reader", "member", "admin"):
        site.fifty("tenant", "token", "guests", "--role", role, "--save", f"guests-{role}")
    before = site.files()
    folder = write(tmp_path, "elsewhere", "by an admin\n")
    for role in ("reader", "member"):
        words = ("image", "build", f"{folder}/", "--credentials", f"guests-{role}")
        assert site.fifty(*words, code=1)["error"] == "Denied"
        assert site.files() == before
    made = site.fifty("image", "build", f"{folder}/", "--credentials", "guests-admin")
    assert (made["name"], made["recipe"]) == ("elsewhere", "elsewhere")
    assert note_in(made, tmp_path) == "by an admin\n"
    site.fifty("image", "delete", "elsewhere", "--credentials", "guests-admin")

    # The site's own are root's: whoever may build may build by them.
    write(site.home / "recipes", "shared", "root's\n")
    words = ("image", "build", "shared", "--credentials", "guests-member")
    assert site.fifty(*words)["visibility"] == "private"
    site.fifty("image", "delete", "shared", "--credentials", "guests-member")


def test_what_is_wrong_is_refused_and_leaves_nothing(site: Site, tmp_path: Path) -> None:
    before = site.files()
    own = site.home / "recipes"
    secret = tmp_path / "secret"
    secret.write_text("canary")
    write(own, "colourful", "")
    with (own / "colourful" / "recipe.toml").open("a") as file:
        file.write('colour = "red"\n')
    write(own, "linked", "")
    (own / "linked" / "note.txt").unlink()
    (own / "linked" / "note.txt").symlink_to(secret)
    write(own, "escaping", "")
    text = RECIPE.format(name="escaping").replace("note.txt", "../../fifty.env")
    (own / "escaping" / "recipe.toml").write_text(text)
    write(own, "open", "").chmod(0o777)
    for name, words in {
        "colourful": "colour: Extra inputs are not permitted",
        "linked": "note.txt cannot be opened",
        "escaping": "source: String should match pattern",
        "open": "others than root can change",
    }.items():
        refused = site.fifty("image", "build", name, code=1)
        assert refused["error"] == "InvalidRequest", refused
        assert words in " ".join((refused["message"], *refused["details"])), refused
        assert "canary" not in str(refused)
        listed = {one["name"]: one for one in site.fifty("image", "recipes")}
        assert words in listed[name]["wrong"]
    for gone in ("nowhere", f"{tmp_path}/nowhere", "/etc/passwd", "../../etc"):
        assert site.fifty("image", "build", gone, code=1)["error"] in ("NotFound", "InvalidRequest")
    write(own, "micro", "")
    refused = site.fifty("image", "build", "micro", code=1)
    assert "comes with Fifty Steps" in refused["message"]
    assert site.files() == before
    shutil.rmtree(own)

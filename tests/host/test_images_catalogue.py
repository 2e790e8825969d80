"""The catalogue by its commands: versions, sharing, withdrawal; and who may do what."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.host.image_site import Site, _site  # noqa: F401 - the fixture `site`
from tests.unit.hostile_images import image

pytestmark = pytest.mark.host


@pytest.mark.slow
def test_versions_sharing_and_withdrawal(site: Site, tmp_path: Path) -> None:
    source = str(image("raw")(tmp_path))
    for version in ("12", "13"):
        made = site.fifty("image", "import", "debian", source, "--version", version)
        assert made["version"] == version
    again = ("image", "import", "debian", source, "--version", "13")
    assert site.fifty(*again, code=1)["error"] == "Conflict"
    assert site.fifty("image", "show", "debian")["version"] == "13"
    assert site.fifty("image", "show", "debian:12")["version"] == "12"

    site.fifty("tenant", "create", "guests")
    for role in ("member", "admin"):
        site.fifty("tenant", "token", "guests", "--role", role, "--save", f"guests-{role}")
    guest = ("--credentials", "guests-member")
    assert site.fifty("image", "show", "debian", *guest, code=1)["error"] == "NotFound"
    assert site.fifty("image", "share", "debian:12", "default", code=1)["error"] == "Conflict"
    site.fifty("image", "share", "debian:12", "guests")
    assert site.fifty("image", "show", "debian", *guest)["version"] == "12"
    # Seen is not owned: nothing of it can be changed.
    for words in (
        ("image", "deactivate", "debian:12", "--why", "mine now"),
        ("image", "set", "debian:12", "--os", "windows"),
        ("image", "delete", "debian:12"),
    ):
        refused = site.fifty(*words, *guest, code=1)
        assert refused["error"] in ("Denied", "NotFound"), refused
    site.fifty("image", "unshare", "debian:12", "guests")
    assert site.fifty("image", "show", "debian", *guest, code=1)["error"] == "NotFound"

    told = site.fifty("image", "deactivate", "debian:13", "--why", "a hole in it")
    assert told["deactivation"]["why"] == "a hole in it"
    assert site.fifty("image", "show", "debian")["version"] == "12"
    vm = ("vm", "create", "x", "--image", "debian:13", "--flavor", "tiny", "--network", "none")
    refused = site.fifty(*vm, code=1)
    assert "a hole in it" in str(refused), refused
    listed = site.fifty("image", "list")
    assert {one["version"]: one["status"] for one in listed} == {
        "12": "active",
        "13": "deactivated",
    }
    site.fifty("image", "activate", "debian:13")
    assert site.fifty("image", "show", "debian")["version"] == "13"

    options = ("--property", "hw_disk_bus=virtio", "--min-ram", "128", "--login-user", "debian")
    changed = site.fifty("image", "set", "debian", *options)
    assert (changed["min_ram_mib"], changed["login_user"]) == (128, "debian")
    changed = site.fifty("image", "set", "debian", "--property", "hw_disk_bus=")
    assert changed["properties"] == {}
    for version in ("12", "13"):
        site.fifty("image", "delete", f"debian:{version}")
    site.require_nothing()


def test_an_image_is_saved_both_ways_and_taken_in_again(site: Site, tmp_path: Path) -> None:
    source = image("raw")(tmp_path)
    site.fifty("image", "import", "kept", str(source))
    saved = {form: tmp_path / f"saved.{form}" for form in ("raw", "qcow2")}
    for form, path in saved.items():
        told = site.fifty("image", "save", "kept", str(path), "--format", form)
        assert (told["file"], told["format"]) == (str(path), form)
        assert told["size_bytes"] == path.stat().st_size
        site.fifty("image", "import", f"again-{form}", str(path), "--format", form)
    assert saved["raw"].read_bytes() == source.read_bytes()
    # As it is: the catalogue's own file.
    whole = tmp_path / "whole"
    assert site.fifty("image", "save", "kept", str(whole))["format"] == "qcow2"
    shown = site.fifty("image", "show", "kept")
    assert hashlib.sha256(whole.read_bytes()).hexdigest() == shown["sha256"]

    site.fifty("tenant", "create", "guests")
    site.fifty("tenant", "token", "guests", "--role", "member", "--save", "guests")
    site.fifty("tenant", "token", "guests", "--role", "admin", "--save", "guests-admin")
    before = sorted(tmp_path.iterdir())
    new = str(tmp_path / "new")
    for words, kind in {
        ("kept", str(whole)): "Conflict",
        ("nobody", new): "NotFound",
        ("kept", str(tmp_path / "no" / "folder")): "InvalidRequest",
        ("kept", str(site.home / "new")): "InvalidRequest",
        ("kept", new, "--credentials", "guests"): "NotFound",
        (shown["id"], new, "--credentials", "guests"): "NotFound",
    }.items():
        assert site.fifty("image", "save", *words, code=1)["error"] == kind, words
    site.fifty("image", "share", "kept", "guests")
    refused = site.fifty("image", "save", "kept", new, "--credentials", "guests", code=1)
    assert refused["error"] == "Denied"
    assert sorted(tmp_path.iterdir()) == before
    # An admin of another tenant may, by its id.
    site.fifty("image", "unshare", "kept", "guests")
    site.fifty("image", "save", shown["id"], new, "--credentials", "guests-admin")
    assert Path(new).read_bytes() == whole.read_bytes()
    for name in ("kept", "again-raw", "again-qcow2"):
        site.fifty("image", "delete", name)
    site.require_nothing()

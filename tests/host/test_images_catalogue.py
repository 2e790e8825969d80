"""The catalogue by its commands: versions, sharing, withdrawal; and who may do what."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.host.image_site import Site, _site  # noqa: F401 - the fixture `site`
from tests.unit.hostile_images import image

pytestmark = pytest.mark.host


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

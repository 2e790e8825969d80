"""Where packages come from: the operator's mirror, this host's apt, and what is beside it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Collection
from pathlib import Path

import pytest

from blocks.errors import HostFault, Unsupported
from blocks.images import DebianRecipe
from blocks.images.mirrors import (
    DISTRIBUTIONS,
    Distribution,
    Known,
    Mirrors,
    Pocket,
    asking,
)
from blocks.images.recipe_book import RECIPES, RecipeBook
from tests.web_server import Served, web_server

AT = "http://mirror.test"
DEBIAN_HOST = [
    Known(f"{AT}/debian", "bookworm", "Debian"),
    Known(f"{AT}/debian", "bookworm-updates", "Debian"),
    Known("http://security.test/debian-security", "bookworm-security", "Debian"),
    Known(f"{AT}/debian", "bookworm-backports", "Debian"),
    Known("http://other.test/apt", "bookworm", "Other"),
]
UBUNTU_HOST = [
    Known(f"{AT}/ubuntu", f"noble{pocket}", "Ubuntu") for pocket in ("", "-updates", "-security")
]
FINGERPRINT = "F6ECB3762474EDA9D21B7022871920D1991BC93C"


def recipe(name: str) -> DebianRecipe:
    found = RecipeBook().find(name)
    assert isinstance(found, DebianRecipe)
    return found


def pockets(
    name: str, known: list[Known], there: Collection[str] = (), **settings: str
) -> list[str]:
    """What packages of a recipe are taken from; `there`: the archives that answer."""

    def answers(pocket: Pocket, of: Distribution) -> bool:
        del of
        return f"{pocket.url} {pocket.release}" in there

    found = Mirrors(settings, lambda: known, answers).pockets(recipe(name))
    return [f"{one.url} {one.release}" for one in found]


def test_what_apt_knows_is_taken_as_it_is() -> None:
    assert pockets("debian-12", DEBIAN_HOST) == [
        f"{AT}/debian bookworm",
        "http://security.test/debian-security bookworm-security",
        f"{AT}/debian bookworm-updates",
    ]
    assert pockets("ubuntu", UBUNTU_HOST) == [
        f"{AT}/ubuntu noble",
        f"{AT}/ubuntu noble-security",
        f"{AT}/ubuntu noble-updates",
    ]


def test_another_suite_is_at_the_same_archives() -> None:
    all_there = [
        f"{AT}/debian trixie",
        "http://security.test/debian-security trixie-security",
        f"{AT}/debian trixie-updates",
    ]
    assert pockets("debian-13", DEBIAN_HOST, all_there) == all_there
    assert pockets("debian-13", DEBIAN_HOST, all_there[:2]) == all_there[:2]
    # apt's sources may say `stable`.
    stable = [Known(f"{AT}/debian", "stable", "Debian")]
    assert pockets("debian-12", stable, [f"{AT}/debian bookworm"]) == [f"{AT}/debian bookworm"]
    # Updates of a release that is not there itself are no release.
    with pytest.raises(Unsupported):
        pockets("debian-13", DEBIAN_HOST, all_there[1:])


def test_the_operators_mirror_comes_first() -> None:
    mine = "http://mine.test/debian"
    there = [f"{mine}-security bookworm-security"]
    assert pockets("debian-12", DEBIAN_HOST, there, debian=f"{mine}/") == [
        f"{mine} bookworm",
        f"{mine}-security bookworm-security",
    ]
    # It is not asked for the release itself: apt tells what is wrong with it.
    assert pockets("debian-13", [], (), debian="file:/srv/debian") == ["file:/srv/debian trixie"]
    whole = [f"http://u.test/x noble{pocket}" for pocket in ("", "-updates", "-security")]
    assert pockets("ubuntu", UBUNTU_HOST, whole, ubuntu="http://u.test/x") == whole


def test_ubuntu_beside_debian_and_the_other_way_round() -> None:
    whole = [f"{AT}/ubuntu noble{pocket}" for pocket in ("", "-updates", "-security")]
    assert pockets("ubuntu", DEBIAN_HOST, whole) == whole
    mine = "http://mine.test/a/ubuntu noble"
    assert pockets("ubuntu", DEBIAN_HOST, [mine], debian="http://mine.test/a/debian") == [mine]
    assert pockets("debian-13", UBUNTU_HOST, [f"{AT}/debian trixie"]) == [f"{AT}/debian trixie"]


@pytest.mark.parametrize(
    "url",
    ["file:/srv/debian", "http://mine.test", "http://mine.test/apt", "tor+http://m.test/debian"],
)
def test_nothing_is_made_up(url: str) -> None:
    with pytest.raises(Unsupported) as caught:
        beside = f"{url.rpartition('/')[0]}/ubuntu noble"
        pockets("ubuntu", [Known(url, "bookworm", "Debian")], [beside])
    assert "FIFTY_UBUNTU_MIRROR" in caught.value.hint
    with pytest.raises(Unsupported, match="Debian trixie"):
        pockets("debian-13", [])


@pytest.mark.skipif(not shutil.which("apt-get"), reason="no apt here")
def test_apt_itself_asks_an_archive(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    answers, ubuntu = asking(tmp_path / "scratch"), DISTRIBUTIONS["ubuntu"]
    release = b"-----BEGIN PGP SIGNED MESSAGE-----\n\nOrigin: Ubuntu\nSuite: noble\n"
    with web_server() as server:
        server.files = {
            "/ubuntu/dists/noble/InRelease": Served(release),
            "/page/dists/noble/InRelease": Served(b"<html>There is no /ubuntu here.</html>\n"),
        }
        at = server.url("")
        assert answers(Pocket(f"{at}/ubuntu", "noble"), ubuntu)
        assert not answers(Pocket(f"{at}/ubuntu", "noble"), DISTRIBUTIONS["debian"])
        assert not answers(Pocket(f"{at}/page", "noble"), ubuntu)
        assert not answers(Pocket(f"{at}/ubuntu", "noble-security"), ubuntu)
    # Whether it has one is not known where nobody answers: no image without security updates.
    with pytest.raises(HostFault, match="could not be fetched"):
        answers(Pocket(f"{at}/ubuntu", "noble"), ubuntu)


@pytest.mark.skipif(not shutil.which("gpg"), reason="no gpg here")
def test_ubuntus_key_is_ubuntus(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    said = subprocess.run(
        ["gpg", "--homedir", tmp_path, "--batch", "--with-colons", "--show-keys"],
        input=(RECIPES / "ubuntu" / "ubuntu-archive.asc").read_bytes(),
        capture_output=True,
        check=True,
    ).stdout.decode()
    lines = [line.split(":") for line in said.splitlines()]
    assert [line[9] for line in lines if line[0] == "fpr"] == [FINGERPRINT]
    assert [line[9] for line in lines if line[0] == "uid"] == [
        "Ubuntu Archive Automatic Signing Key (2018) <ftpmaster@ubuntu.com>"
    ]

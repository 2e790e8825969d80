"""Where a release's packages come from: the operator's setting, or this host's apt."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from blocks.commands import run
from blocks.errors import HostFault, Unsupported
from blocks.images.recipe import DebianRecipe

_HELPER = "/usr/lib/apt/apt-helper"
_NOT_THERE = re.compile(r"\s4\d\d\s|File not found")
_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Distribution:
    """How a distribution's archives are laid out.

    Attributes:
        origin: What its Release files call it.
        keyring: Where a host that has its keys keeps them.
        setting: The setting that names a mirror of it.
        places: The last part of the URL that each of a release's pockets is at, by what is
            added to the release's name; the first one is the release itself.
    """

    origin: str
    keyring: Path
    setting: str
    places: Mapping[str, str]


_KEYRINGS = Path("/usr/share/keyrings")
DISTRIBUTIONS: Mapping[str, Distribution] = {
    "debian": Distribution(
        "Debian",
        _KEYRINGS / "debian-archive-keyring.gpg",
        "FIFTY_MIRROR",
        {"": "debian", "-updates": "debian", "-security": "debian-security"},
    ),
    "ubuntu": Distribution(
        "Ubuntu",
        _KEYRINGS / "ubuntu-archive-keyring.gpg",
        "FIFTY_UBUNTU_MIRROR",
        {"": "ubuntu", "-updates": "ubuntu", "-security": "ubuntu"},
    ),
}


@dataclass(frozen=True)
class Pocket:
    """A part of a release, as a line of sources.list names it.

    Attributes:
        url: The archive.
        release: The release's name, with what the pocket adds.
    """

    url: str
    release: str


@dataclass(frozen=True)
class Known:
    """An archive that this host's apt knows, with its Release file's origin."""

    url: str
    release: str
    origin: str


#: Whether an archive has a release of a distribution.
Answers = Callable[[Pocket, Distribution], bool]


class Mirrors:
    """The archives that packages are taken from.

    Args:
        settings: The mirrors' URLs by distribution, as the operator set them.
        known: What this host's apt is set up with.
        answers: Asks an archive.
    """

    def __init__(
        self, settings: Mapping[str, str | None], known: Callable[[], list[Known]], answers: Answers
    ) -> None:
        self._settings = settings
        self._known = known
        self._answers = answers

    def pockets(self, recipe: DebianRecipe) -> list[Pocket]:
        """The pockets of a recipe's release.

        Of what the operator set, this host's apt knows, apt's own archives have besides, and
        mirrors of the other distribution have beside it: the first that there is.

        Raises:
            Unsupported: There is none.
            HostFault: An archive could not be asked.
        """
        of = DISTRIBUTIONS[recipe.distribution]
        set_up = self._settings.get(recipe.distribution)
        if set_up is not None:
            return self._at(set_up.rstrip("/"), of, recipe.suite)
        known = [one for one in self._known() if one.origin == of.origin]
        wanted = {f"{recipe.suite}{added}" for added in of.places}
        if found := {Pocket(one.url, one.release) for one in known if one.release in wanted}:
            return _sorted(found)
        derived = {pocket for one in known for pocket in _of_suite(one, recipe.suite, of)}
        answering = {pocket for pocket in derived if self._answers(pocket, of)}
        if any(pocket.release == recipe.suite for pocket in answering):
            return _sorted(answering)
        for url in self._siblings(recipe.distribution):
            if self._answers(Pocket(url, recipe.suite), of):
                return self._at(url, of, recipe.suite)
        raise Unsupported(
            f"no source of {of.origin} {recipe.suite} is known on this host",
            hint=f"set {of.setting} to a mirror of it, or run `apt-get update`",
        )

    def _at(self, url: str, of: Distribution, suite: str) -> list[Pocket]:
        """A release at a mirror, with those of its other pockets that are there."""
        found = [Pocket(url, suite)]
        for added, place in of.places.items():
            at = url if place == of.places[""] else _sibling(url, place)
            if added and at and self._answers(pocket := Pocket(at, f"{suite}{added}"), of):
                found.append(pocket)
        return found

    def _siblings(self, distribution: str) -> Iterator[str]:
        """Where mirrors of other distributions have this one, if they carry it."""
        place = DISTRIBUTIONS[distribution].places[""]
        seen = set()
        for name, other in DISTRIBUTIONS.items():
            if name == distribution:
                continue
            set_up = self._settings.get(name)
            known = [one.url for one in self._known() if one.origin == other.origin]
            for url in [set_up.rstrip("/")] if set_up else sorted(known):
                beside = _sibling(url, place)
                if beside and url.endswith(f"/{other.places['']}") and beside not in seen:
                    seen.add(beside)
                    yield beside


def _sorted(pockets: set[Pocket]) -> list[Pocket]:
    return sorted(pockets, key=lambda one: (one.release, one.url))


def _of_suite(known: Known, suite: str, of: Distribution) -> Iterator[Pocket]:
    """What another release's archive would be for this one."""
    name, dash, rest = known.release.partition("-")
    if name and f"{dash}{rest}" in of.places:
        yield Pocket(known.url, f"{suite}{dash}{rest}")


def _sibling(url: str, place: str) -> str | None:
    """The URL beside another one; None where that is not fetched from, or has no path."""
    found = re.fullmatch(r"(https?://[^/]+(?:/[^/]+)*)/[^/]+", url)
    return f"{found[1]}/{place}" if found else None


def known_to_apt() -> list[Known]:
    """The archives that this host's apt is set up with, and has the lists of."""
    said = run(
        "apt-get",
        *("indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)"),
        "Created-By: Packages",
    ).stdout
    lines = [line.split() for line in said.splitlines()]
    return [
        Known(words[0].rstrip("/"), words[1], words[3])
        for words in lines
        if len(words) == 4 and words[2] == "main"
    ]


def asking(scratch: Path) -> Answers:
    """Asks archives by apt itself, and so with its proxies; `scratch` takes what they say."""

    def answers(pocket: Pocket, of: Distribution) -> bool:
        path = scratch / "InRelease"
        path.unlink(missing_ok=True)
        url = f"{pocket.url}/dists/{pocket.release}/InRelease"
        words = ("-o", "Acquire::Retries=1", "-o", "APT::Sandbox::User=root", "download-file")
        done = run(_HELPER, *words, url, path, ok_codes=(0, 100), timeout_s=_TIMEOUT_S)
        said = f"{done.stdout}{done.stderr}"
        if done.returncode == 0:
            # Not a page that says that there is none. Signatures are apt's to check, later.
            return f"\nOrigin: {of.origin}\n" in path.read_text(errors="replace")
        if _NOT_THERE.search(said):
            return False
        raise HostFault(
            f"{url} could not be fetched: {' '.join(said.split())[-300:]}",
            hint=f"try again, or set {of.setting} to another mirror",
        )

    return answers

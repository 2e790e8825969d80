"""Debian packages as material: fetched and unpacked, never installed on this host.

apt-get resolves and downloads them, and so checks signatures and checksums. It is told to
look at an empty dpkg status, so that what this host has installed does not matter.
"""

from __future__ import annotations

import hashlib
import shutil
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from blocks.commands import run
from blocks.errors import FiftyError, HostFault, Unsupported

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_DOWNLOAD_TIMEOUT_S = 900.0
#: How old a mirror's lists may be; later they name packages that it no longer has.
_LISTS_KEEP_S = 24 * 3600
_KERNEL_PARTS = ("linux-image-", "linux-modules-")


@dataclass(frozen=True)
class Package:
    """A package that apt has chosen: its file's name, length in bytes and SHA-256."""

    file_name: str
    size: int
    sha256: str

    @property
    def exact(self) -> str:
        """`NAME=VERSION`, as apt-get takes it."""
        name, version, _architecture = self.file_name.split("_")
        return f"{name}={unquote(version)}"

    def is_at(self, path: Path) -> bool:
        """Whether that file is this package, whole."""
        if not path.is_file() or path.stat().st_size != self.size:
            return False
        return hashlib.sha256(path.read_bytes()).hexdigest() == self.sha256


class PackageSource:
    """Where packages come from: this host's apt, or a Debian mirror.

    One process at a time may use a directory, by as many threads as it likes.

    Args:
        directory: Kept between builds: downloaded and unpacked packages, apt's caches.
        mirror: A Debian mirror's URL; none means what this host's apt is set up with.
        suite: The release that is taken from the mirror.
    """

    def __init__(self, directory: Path, mirror: str | None = None, suite: str = "bookworm") -> None:
        self._mirror = mirror
        self._suite = suite
        self._archives = directory / "archives"
        self._trees = directory / "unpacked"
        self._apt = directory / (f"apt-{suite}" if mirror else "apt")
        self._alone = threading.Lock()

    def with_dependencies(self, names: Sequence[str]) -> list[Path]:
        """Fetch packages and all that they depend on; the packages' files.

        Raises:
            Unsupported: The source does not know one of them.
            HostFault: The download failed.
        """
        return self._fetch(self._resolve(names))

    def kernel(self, candidates: Sequence[str]) -> list[Path]:
        """Fetch the first kernel that the source knows, without what it depends on.

        Returns:
            The files of its image and module packages.

        Raises:
            Unsupported: The source knows none of them.
            HostFault: The download failed.
        """
        for name in candidates:
            try:
                resolved = self._resolve([name])
            except Unsupported:
                continue
            parts = [one for one in resolved if one.file_name.startswith(_KERNEL_PARTS)]
            return self._fetch(one for one in parts if not one.file_name.startswith(f"{name}_"))
        raise Unsupported(
            f"the package source has none of the kernels {', '.join(candidates)}",
            hint="set FIFTY_MIRROR to a Debian mirror, or run `apt-get update`",
        )

    def unpacked(self, package: Path) -> Path:
        """The tree of a fetched package; unpacked once, and kept."""
        tree = self._trees / package.stem
        if not tree.is_dir():
            part = tree.with_name(f"{tree.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            run("dpkg-deb", "-x", package, part, timeout_s=300)
            part.rename(tree)
        return tree

    def _resolve(self, names: Sequence[str]) -> list[Package]:
        """What apt would fetch onto an empty system (an empty archive: so all of it)."""
        with self._alone:
            self._prepare()
        try:
            said = self._get(
                "install",
                "--print-uris",
                "--no-install-recommends",
                *("-o", "Acquire::ForceHash=SHA256"),
                *("-o", f"Dir::Cache::archives={self._apt / 'empty'}"),
                "--",
                *names,
            )
        except HostFault as error:
            raise Unsupported(
                f"apt cannot provide {', '.join(names)}",
                hint="run `apt-get update`, or set FIFTY_MIRROR to a Debian mirror",
                details=[error.message.rpartition(" ended with ")[2]],
            ) from error
        return [_package(line) for line in said.splitlines() if line.startswith("'")]

    def _fetch(self, packages: Iterable[Package]) -> list[Path]:
        """Download what is not there yet."""
        wanted = [(package, self._archives / package.file_name) for package in packages]
        with self._alone:
            missing = [package.exact for package, path in wanted if not package.is_at(path)]
            if missing:
                self._get("download", *missing, cwd=self._archives)
        for package, path in wanted:
            if not package.is_at(path):
                raise HostFault(f"apt-get did not fetch {package.file_name} as its index has it")
        return [path for _package, path in wanted]

    def _prepare(self) -> None:
        """Make the directories and, for a mirror, apt's own settings and lists."""
        for directory in (self._archives / "partial", self._trees, self._apt / "empty" / "partial"):
            directory.mkdir(parents=True, exist_ok=True)
        (self._apt / "status").touch()
        if self._mirror is None:
            return
        if not KEYRING.exists():
            raise Unsupported(
                f"{KEYRING} is missing, so a Debian mirror cannot be trusted",
                hint="install debian-archive-keyring",
            )
        line = f"deb [signed-by={KEYRING}] {self._mirror} {self._suite} main\n"
        sources = self._apt / "sources.list"
        if sources.exists() and sources.read_text() == line and _age_s(sources) < _LISTS_KEEP_S:
            return
        (self._apt / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        sources.write_text(line)
        try:
            self._get("update", "-o", "APT::Update::Error-Mode=any")
        except FiftyError:
            sources.unlink()
            raise

    def _get(self, *words: str, cwd: Path | None = None) -> str:
        """apt-get with our own caches; what it says on standard output."""
        options = [
            f"Dir::State::status={self._apt / 'status'}",
            f"Dir::Cache::pkgcache={self._apt / 'pkgcache.bin'}",
            f"Dir::Cache::srcpkgcache={self._apt / 'srcpkgcache.bin'}",
        ]
        if self._mirror is not None:
            options += [
                f"Dir::State::lists={self._apt / 'lists'}",
                f"Dir::Etc::sourcelist={self._apt / 'sources.list'}",
                "Dir::Etc::sourceparts=/dev/null",
            ]
        flags = [part for option in options for part in ("-o", option)]
        done = run("apt-get", "-qq", *flags, *words, cwd=cwd, timeout_s=_DOWNLOAD_TIMEOUT_S)
        return done.stdout


def _package(line: str) -> Package:
    """Read a line of --print-uris: `'URI' FILE SIZE SHA256:HASH`."""
    _uri, name, size, digest = line.split()
    return Package(file_name=name, size=int(size), sha256=digest.removeprefix("SHA256:"))


def _age_s(path: Path) -> float:
    return time.time() - path.stat().st_mtime

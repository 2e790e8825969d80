"""Checksums that come in a file `SHA256SUMS` beside what they are of."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urljoin, urlsplit

from blocks.errors import NotFound
from blocks.images.inspection import open_regular
from blocks.images.intake.download import Downloader

#: The file's name; where a checksum is asked for it stands for the one that the file holds.
SUMS = "SHA256SUMS"
_LONGEST_SUMS = 1024 * 1024


def expected_of(source: str, downloader: Downloader) -> str:
    """The checksum of a source in the `SHA256SUMS` beside it.

    Args:
        source: A URL, or a file's path.
        downloader: Reads what is beside a URL.

    Raises:
        NotFound: There is no such file, or it does not name the source.
    """
    if "://" in source:
        beside = urljoin(source, SUMS)
        name = PurePosixPath(unquote(urlsplit(source).path)).name
        content = downloader.small(beside)
    else:
        beside = str(Path(source).with_name(SUMS))
        name = Path(source).name
        content = _small_file(Path(beside))
    if content is None:
        raise NotFound(f"there is no {beside}", hint="give the checksum itself: --sha256")
    found = checksum_of(name, content.decode(errors="replace"))
    if found is None:
        raise NotFound(f"{beside} has no checksum of {name!r}")
    return found


def checksum_of(name: str, sums: str) -> str | None:
    """A file's checksum in the text that `sha256sum` prints (or with `--tag`, as BSD's).

    Where it is there twice with different checksums, none of them counts.
    """
    found = set()
    for line in sums.splitlines():
        if line.startswith("SHA256 (") and ") = " in line:
            other, _, digest = line.removeprefix("SHA256 (").rpartition(") = ")
        else:
            digest, _, other = line.partition(" ")
            other = other.lstrip(" *").removeprefix("./")
        digest = digest.strip().lower()
        if (
            other.strip() == name
            and len(digest) == 64
            and not set(digest) - set("0123456789abcdef")
        ):
            found.add(digest)
    return found.pop() if len(found) == 1 else None


def _small_file(path: Path) -> bytes | None:
    try:
        with open_regular(path.resolve()) as file:
            return file.read(_LONGEST_SUMS)
    except NotFound:
        return None

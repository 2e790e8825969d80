"""Downloading a large file: what is there is not fetched again, and there is an end to it.

A download that breaks goes on where it stopped (RFC 9110, Range and If-Range), in this
process or in a later one: a note beside the file says what it is a part of. A server that
cannot say whether the rest is still of the same file gives it from the beginning.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import requests
from pydantic import BaseModel, ConfigDict, ValidationError
from urllib3.exceptions import HTTPError

from blocks.errors import Denied, InvalidRequest, NotFound, Transient, UnsafeImage
from blocks.images.intake.reach import Reach, require_fetchable
from blocks.images.intake.unpacking import write_sparsely

#: Bytes that are there, and bytes in all where that is known.
Progress = Callable[[int, int | None], None]

_CHUNK = 1024 * 1024
_CONNECT_S, _READ_S = 10.0, 30.0
_MOST_REDIRECTS = 5
#: A broken download goes on so often as long as each try brings something.
_MOST_TRIES = 20
_REDIRECTS = (301, 302, 303, 307, 308)
_SMALL_LIMIT = 1024 * 1024
_LONGEST_NUMBER = 20


@dataclass(frozen=True)
class Pace:
    """What is too slow.

    Attributes:
        window_s: So long a transfer is watched; then it must have brought `least_bytes`.
    """

    window_s: float = 60.0
    least_bytes: int = 64 * 1024


class _Note(BaseModel):
    """What the part that is there is a part of."""

    model_config = ConfigDict(extra="forbid")

    url: str
    validator: str | None


class Downloader:
    """Downloads from where `reach` permits.

    Args:
        reach: The addresses that may be connected to.
        pace: What is too slow.
    """

    def __init__(self, reach: Reach, pace: Pace | None = None) -> None:
        self._reach = reach
        self._pace = pace or Pace()

    def fetch(
        self, url: str, path: Path, limit: int, progress: Progress, *, checked: bool = False
    ) -> None:
        """Have the whole file at a path.

        Args:
            url: Where it is.
            path: Where it is put; what an earlier try left there is gone on with.
            limit: The most bytes.
            progress: Told now and then.
            checked: Its checksum will be compared: so the rest of it is taken also from a
                server that cannot say whether it is of the same file.

        Raises:
            InvalidRequest: The URL is wrong, or the server says that there is no such file.
            Denied: It is, or leads to, an address that may not be connected to.
            UnsafeImage: It is larger than the limit.
            Transient: The server does not answer, or breaks off, or is too slow.
        """
        before = -1
        for _ in range(_MOST_TRIES):
            there = path.stat().st_size if path.exists() else 0
            if there <= before:
                break
            before = there
            try:
                self._go_on(url, path, limit, progress, checked=checked)
            except _BrokenOffError as error:
                broken = error
                continue
            return
        raise Transient(f"the download broke off: {broken}") from broken

    def small(self, url: str) -> bytes | None:
        """A small file; None where there is none.

        Raises:
            UnsafeImage: It is not small.
        """
        found = bytearray()
        try:
            with self._answer(url, {}) as (answer, _url):
                _require_plain(answer)
                for chunk in self._chunks(answer):
                    found += chunk
                    if len(found) > _SMALL_LIMIT:
                        raise UnsafeImage(f"{url} is too large for what it should be")
        except NotFound:
            return None
        except _BrokenOffError as error:
            raise Transient(f"{url} could not be read: {error}") from error
        return bytes(found)

    def _go_on(
        self, url: str, path: Path, limit: int, progress: Progress, *, checked: bool
    ) -> None:
        headers = {}
        start = path.stat().st_size if path.exists() else 0
        note = _read_note(path)
        if start and note and note.url == url and (note.validator or checked):
            headers["Range"] = f"bytes={start}-"
            if note.validator:
                headers["If-Range"] = note.validator
        with self._answer(url, headers) as (answer, _last):
            _require_plain(answer)
            if answer.status_code == requests.codes.requested_range_not_satisfiable:
                path.unlink(missing_ok=True)
                raise _BrokenOffError("the file has changed meanwhile")
            total = _total_of(answer, start)
            if answer.status_code != requests.codes.partial_content:
                start = 0
            if total is not None and total > limit:
                raise UnsafeImage(f"the file has {total} bytes, {limit} are allowed")
            _write_note(path, _Note(url=url, validator=_validator(answer)))
            with path.open("r+b" if path.exists() else "wb") as file:
                file.truncate(start)
                file.seek(start)
                done = start
                progress(done, total)
                try:
                    for chunk in self._chunks(answer):
                        if done + len(chunk) > limit:
                            raise UnsafeImage(f"the file has more than the {limit} bytes allowed")
                        write_sparsely(file, chunk)
                        done += len(chunk)
                        progress(done, total)
                finally:
                    # Its length says what there is, though it may end with a hole.
                    file.truncate(done)
            if total is not None and done != total:
                raise _BrokenOffError(f"{done} of {total} bytes came")

    @contextmanager
    def _answer(self, url: str, headers: dict[str, str]) -> Iterator[tuple[requests.Response, str]]:
        """The server's answer, after redirects."""
        with self._reach.session() as session:
            for _ in range(_MOST_REDIRECTS + 1):
                require_fetchable(url)
                answer = self._get(session, url, headers)
                if answer.status_code not in _REDIRECTS:
                    break
                target = urljoin(url, answer.headers.get("location", ""))
                answer.close()
                if urlsplit(url).scheme == "https" and urlsplit(target).scheme != "https":
                    raise Denied("the server redirects from https to something else")
                url = target
            else:
                raise InvalidRequest(f"the server redirects more than {_MOST_REDIRECTS} times")
            with answer:
                _require_success(answer)
                yield answer, url

    def _get(
        self, session: requests.Session, url: str, headers: dict[str, str]
    ) -> requests.Response:
        try:
            return session.get(
                url,
                # As it is: a body that the library would unpack has no known length.
                headers={"Accept-Encoding": "identity", **headers},
                stream=True,
                allow_redirects=False,
                timeout=(_CONNECT_S, _READ_S),
            )
        except requests.exceptions.SSLError as error:
            raise InvalidRequest(
                f"the server's certificate is not accepted: {error}",
                hint="this host's ca-certificates say which are; SSL_CERT_FILE names others",
            ) from error
        except (requests.exceptions.InvalidURL, UnicodeError) as error:
            raise InvalidRequest(f"the URL is malformed: {error}") from error
        except requests.exceptions.RequestException as error:
            raise _BrokenOffError(str(error)) from error

    def _chunks(self, answer: requests.Response) -> Iterator[bytes]:
        begun, brought = time.monotonic(), 0
        while True:
            try:
                chunk = answer.raw.read1(_CHUNK, decode_content=False)
            except (HTTPError, OSError) as error:
                raise _BrokenOffError(str(error)) from error
            if not chunk:
                return
            yield chunk
            brought += len(chunk)
            if time.monotonic() - begun > self._pace.window_s:
                if brought < self._pace.least_bytes:
                    raise Transient(f"only {brought} bytes came in {self._pace.window_s:g} s")
                begun, brought = time.monotonic(), 0


class _BrokenOffError(Exception):
    """The connection ended too early; another one may bring the rest."""


def _require_success(answer: requests.Response) -> None:
    status = answer.status_code
    if status in (200, 206, 416):
        return
    message = f"the server answers {status} {answer.reason}"
    if status in (404, 410):
        raise NotFound(message, hint="look at the URL")
    if status >= 500 or status in (408, 425, 429):
        raise Transient(message)
    raise InvalidRequest(message, hint="look at the URL")


def _require_plain(answer: requests.Response) -> None:
    if answer.headers.get("content-encoding", "identity").lower() != "identity":
        raise InvalidRequest(
            "the server sends the file in an encoding that was not asked for",
            hint="use the URL of the file as it is; it may be a .gz, .xz or .zst",
        )


def _total_of(answer: requests.Response, start: int) -> int | None:
    """The whole file's length, as the server says; None where it does not."""
    if answer.status_code == requests.codes.partial_content:
        words = answer.headers.get("content-range", "")
        place, _, total = words.removeprefix("bytes ").partition("/")
        if place.partition("-")[0] != str(start):
            raise InvalidRequest(f"the server sends another part than it was asked for: {words}")
        return _number(total)
    return _number(answer.headers.get("content-length", ""))


def _number(text: str) -> int | None:
    """A length as a server writes it; Python reads no number of more than 4300 digits."""
    if not text.isdecimal():
        return None
    if len(text) > _LONGEST_NUMBER:
        raise UnsafeImage(f"the file's length is a number of {len(text)} digits")
    return int(text)


def _validator(answer: requests.Response) -> str | None:
    """What tells whether a later answer is of the same file (a strong ETag, or a date)."""
    etag = answer.headers.get("etag")
    if etag is not None and not etag.startswith("W/"):
        return etag
    return answer.headers.get("last-modified")


def _note_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.note")


def _read_note(path: Path) -> _Note | None:
    try:
        return _Note.model_validate_json(_note_of(path).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _write_note(path: Path, note: _Note) -> None:
    """Write the note before the first byte that it is about."""
    beside = path.with_name(f"{path.name}.note.new")
    beside.write_text(note.model_dump_json())
    with beside.open("rb") as file:
        os.fsync(file.fileno())
    beside.replace(_note_of(path))

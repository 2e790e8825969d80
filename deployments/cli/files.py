"""The files that a command line names, read with limits; all that is wrong is told at once."""

from __future__ import annotations

import base64
import os
import re
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Any

from blocks.errors import InvalidRequest
from blocks.guest.key_files import KEY_LIMIT, public_key_of
from blocks.resources.request import INJECT_LIMIT
from blocks.user_data import USER_DATA_LIMIT

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_COUNT = re.compile(r"[0-9]{1,9}")
#: For a request in a file.
FORM_LIMIT = 64 * 1024
#: The longest character of UTF-8, so that a text that is cut is still known to be too long.
_SLACK = 4


class Findings:
    """Reads what options name, and gathers what is wrong with them."""

    def __init__(self) -> None:
        self._wrong: list[str] = []

    def refuse(self) -> None:
        """Refuse the command line if anything was wrong with it.

        Raises:
            InvalidRequest: With a line for each finding.
        """
        if len(self._wrong) == 1:
            raise InvalidRequest(self._wrong[0], hint="correct it and run it again")
        if self._wrong:
            raise InvalidRequest(
                f"{len(self._wrong)} things are wrong with this command",
                hint="correct them and run it again",
                details=self._wrong,
            )

    def whole(self, option: str, text: str) -> int:
        """A whole number, as the request's validation takes it."""
        if not _WHOLE.fullmatch(text):
            self._wrong.append(f"{option}: {text!r} is not a whole number")
            return 0
        return int(text)

    def limit(self, option: str, pair: str, known: Collection[str]) -> tuple[str, int]:
        """A resource and how much of it, from `RESOURCE=LIMIT`."""
        resource, _sign, number = pair.partition("=")
        if resource not in known or not _COUNT.fullmatch(number):
            these = ", ".join(sorted(known))
            self._wrong.append(f"{option}: {pair!r} is not RESOURCE=LIMIT, with one of {these}")
            return "", 0
        return resource, int(number)

    def ports(self, option: str, text: str) -> tuple[int, int]:
        """The first and the last of some ports, from `PORT` or `FIRST-LAST`."""
        first, dash, last = text.partition("-")
        if not _COUNT.fullmatch(first) or (dash and not _COUNT.fullmatch(last)):
            self._wrong.append(f"{option}: {text!r} is not PORT or FIRST-LAST")
            return 0, 0
        return int(first), int(last) if dash else int(first)

    def route(self, option: str, pair: str) -> dict[str, str]:
        """A route, from `CIDR=ADDRESS`, as the request's validation takes it."""
        destination, sign, nexthop = pair.partition("=")
        if not sign or not destination or not nexthop:
            self._wrong.append(f"{option}: {pair!r} is not CIDR=ADDRESS")
        return {"destination": destination, "nexthop": nexthop}

    def form(self, option: str, file: str) -> dict[str, Any]:
        """The fields of a request, from a YAML file."""
        content = self._read(option, file, FORM_LIMIT)
        if content is None:
            return {}
        if len(content) > FORM_LIMIT:
            self._wrong.append(f"{option}: {file} is over the limit of {FORM_LIMIT} bytes")
            return {}
        # Here, because most commands read no YAML.
        import yaml

        try:
            found = yaml.safe_load(content)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            mark = getattr(error, "problem_mark", None)
            where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
            self._wrong.append(f"{option}: {file} is not YAML{where}")
            return {}
        if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
            self._wrong.append(f"{option}: {file} is not a mapping of fields")
            return {}
        return found

    def user_data(self, file: str) -> str:
        """The text of a user-data file; one that is too long is cut, and refused by step 4."""
        content = self._read("--user-data", file, USER_DATA_LIMIT) or b""
        try:
            return content.decode()
        except UnicodeDecodeError as error:
            if error.start < USER_DATA_LIMIT - _SLACK:
                self._wrong.append(f"--user-data: {file}: is not UTF-8 text")
            return content.decode(errors="replace")

    def injected(self, pair: str) -> dict[str, Any]:
        """A file for the guest, from `SRC:DST`; it keeps its permission bits."""
        # A destination is an absolute path, so that a colon may be part of either name.
        at = pair.find(":/")
        source, colon, destination = (
            (pair[:at], ":", pair[at + 1 :]) if at > 0 else pair.rpartition(":")
        )
        if not colon or not source or not destination:
            self._wrong.append(f"--inject: {pair!r} is not of the form SRC:DST")
            return {}
        content = self._read("--inject", source, INJECT_LIMIT) or b""
        encoded = base64.b64encode(content).decode()
        return {"path": destination, "content_base64": encoded, "mode": _mode(source)}

    def key(self, word: str) -> str:
        """A key pair's name as it is, or the public key of a file."""
        if not looks_like_file(word):
            return word
        content = self._read("--key", word, KEY_LIMIT)
        if content is None:
            return word
        try:
            return public_key_of(Path(word), content)
        except InvalidRequest as error:
            self._wrong.append(f"--key: {error.message}")
            return word

    def _read(self, option: str, file: str, limit: int) -> bytes | None:
        """At most `limit` bytes and some more, which say that it is too long; None: not read."""
        try:
            with Path(file).open("rb") as opened:
                return opened.read(limit + _SLACK)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            self._wrong.append(f"{option}: {file} cannot be read: {why}")
            return None


def looks_like_file(word: str) -> bool:
    """Whether `--key` names a file, not a key pair."""
    return os.sep in word or word.endswith(".pub") or Path(word).is_file()


def _mode(file: str) -> int:
    """A file's permission bits, without set-user-id and the like; 0644 if it is none."""
    try:
        status = Path(file).stat()
    except OSError:
        return 0o644  # told already, by who could not read it
    return stat.S_IMODE(status.st_mode) & 0o777 if stat.S_ISREG(status.st_mode) else 0o644

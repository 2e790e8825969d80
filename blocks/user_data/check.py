"""Checking user data: its size, its form, and whether a guest could make anything of it."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlsplit

from blocks.user_data import schema
from blocks.user_data.bounded_yaml import load
from blocks.user_data.kinds import BEGINNINGS, TEMPLATED, Kind, kind_of
from blocks.user_data.parts import Part, parts_of

#: Nova's limit for user data, before base64.
USER_DATA_LIMIT = 64 * 1024
#: Where a guest may fetch what it includes (cloud-init's `read_file_or_url`).
_INCLUDED_FROM = ("http", "https", "file")
_SCRIPTS = (Kind.SCRIPT, Kind.PER_BOOT, Kind.PER_INSTANCE, Kind.PER_ONCE)


def check_user_data(text: str) -> None:
    """Check what a guest is to be given as user data, without quoting any of it.

    What begins as none of cloud-init's kinds passes: other guests have other ways (Ignition,
    cloudbase-init's `#ps1`); `wrong_for_guest` is for those with cloud-init.

    Raises:
        ValueError: It is too long, or is not what it says that it is; the message is told of
            a field or file ("is not YAML ...").
    """
    for part in _parts(text):
        try:
            _check(part)
        except ValueError as error:
            raise ValueError(f"{part.where}{error}") from None


def kinds_in(text: str) -> list[str]:
    """What valid user data is made of, in words and in order."""
    return [part.kind.words if part.kind else "unknown" for part in _parts(text)]


def wrong_for_guest(text: str, schema_file: Path | None) -> list[str]:
    """What the cloud-init of an image could not use of valid user data, a line each.

    Args:
        text: It has passed `check_user_data`.
        schema_file: The schema of that cloud-init for cloud-configs; None where it has none.

    Raises:
        UnsafeImage: The schema cannot be worked with in bounded time.
    """
    wrong = []
    for part in _parts(text):
        if part.kind is None:
            known = ", ".join(BEGINNINGS)
            wrong.append(f"{part.where}would be ignored: it begins with none of {known}")
        elif part.kind is Kind.CLOUD_CONFIG and schema_file is not None:
            wrong += [f"{part.where}{line}" for line in schema.violations(part.text, schema_file)]
    return wrong


def _parts(text: str) -> list[Part]:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ValueError("is no text in UTF-8") from None
    if size > USER_DATA_LIMIT:
        raise ValueError(f"is over the limit of {USER_DATA_LIMIT} bytes")
    return parts_of(text)


def _check(part: Part) -> None:
    if part.kind is Kind.CLOUD_CONFIG:
        if not isinstance(load(part.text), dict | None):
            raise ValueError("must be a YAML mapping after #cloud-config")
    elif part.kind in _SCRIPTS:
        _check_script(part.text)
    elif part.kind in (Kind.INCLUDE, Kind.INCLUDE_ONCE):
        _check_includes(part.text)
    elif part.kind is Kind.JINJA:
        _check_template(part.text)
    elif part.kind is Kind.PART_HANDLER:
        if "def list_types(" not in part.text or "def handle_part(" not in part.text:
            raise ValueError("must define list_types() and handle_part() after #part-handler")
    elif part.kind is Kind.JSON_PATCH:
        _check_patch(part.text)
    elif part.kind is Kind.ARCHIVE:
        raise ValueError("is an archive in an archive, which cloud-init does not open")


def _check_script(text: str) -> None:
    """A script that the kernel could start (execve(2))."""
    first = text.lstrip().split("\n", 1)[0]
    if not first.startswith("#!"):
        raise ValueError("is a script that does not begin with #!")
    if first.endswith("\r"):
        raise ValueError("is a script with line ends of DOS: no interpreter's name ends so")
    if not first.removeprefix("#!").strip().startswith("/"):
        raise ValueError("names no interpreter by its absolute path after #!")


def _check_includes(text: str) -> None:
    """Lines of URLs; the guest fetches them, nobody else does."""
    urls = 0
    for number, line in enumerate(text.strip().splitlines(), 1):
        rest = line
        for word in ("#include-once", "#include"):
            if line.lower().startswith(word):
                rest = line[len(word) :]
                break
        url = rest.strip()
        if not url or url.startswith("#"):
            continue
        urls += 1
        try:
            split = urlsplit(url)
        except ValueError:
            raise ValueError(f"line {number} is not a URL") from None
        if split.scheme not in _INCLUDED_FROM:
            known = ", ".join(_INCLUDED_FROM)
            raise ValueError(f"line {number} is not a URL that a guest fetches ({known})")
        if split.scheme != "file" and not split.hostname:
            raise ValueError(f"line {number} is a URL without a host")
    if not urls:
        raise ValueError("includes nothing: no line has a URL")


def _check_template(text: str) -> None:
    """A Jinja template: its syntax, and that what follows its header is a kind of its own.

    It is parsed, never compiled: that would work out what is constant, such as 9 ** 9 ** 9.
    """
    from jinja2 import Environment, TemplateSyntaxError  # noqa: PLC0415 - few need it

    if kind_of(text) is not Kind.JINJA:
        raise ValueError("is a template that does not begin with `## template: jinja`")
    body = text.lstrip().partition("\n")[2]
    kind = kind_of(body)
    if kind not in TEMPLATED and "{%" not in body.lstrip()[:2]:
        known = ", ".join(one.words for one in TEMPLATED)
        raise ValueError(f"has nothing under its Jinja header that can be rendered ({known})")
    try:
        # Nothing is rendered here, so there is nothing to escape.
        Environment(autoescape=False).parse(body)  # noqa: S701
    except TemplateSyntaxError as error:
        raise ValueError(f"is no Jinja template (line {error.lineno + 1})") from None
    except RecursionError:
        raise ValueError("is a Jinja template that is nested too deep") from None


def _check_patch(text: str) -> None:
    """A JSON patch of the cloud-config (RFC 6902)."""
    try:
        patch = json.loads(text.lstrip().partition("\n")[2])
    except (ValueError, RecursionError):
        raise ValueError("is not JSON after #cloud-config-jsonp") from None
    if not isinstance(patch, list) or not all(isinstance(one, dict) for one in patch):
        raise ValueError("must be a JSON list of operations after #cloud-config-jsonp")

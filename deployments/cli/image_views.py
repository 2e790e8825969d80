"""What `fifty image show` tells on a terminal of the longer things that are known of an image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from blocks.resources import Image
from deployments.cli import documents, output

_LONG = ("report", "certificate", "chain")
_MIB = 1024**2
#: What a certificate tells of the guest, beside what it tells of the host.
_OF_THE_GUEST: Mapping[str, str] = {
    "guest": "in the guest",
    "kernel": "the guest's kernel",
    "cloud-init": "the guest's cloud-init",
}
#: How fields end that hold a figure, and how it is told.
_UNITS: Mapping[str, Callable[[int], str]] = {
    "_bytes": lambda value: f"{value / _MIB:.1f} MiB ({value} bytes)",
    "_gib": lambda value: f"{value} GiB",
    "_mib": lambda value: f"{value} MiB",
    "_s": lambda value: f"{value} s",
}


def tell(image: Image, *, json: bool) -> None:
    """Tell of an image that was made or changed."""
    found = documents.image(image)
    if json:
        output.document(found)
    else:
        output.facts(facts(found))


def facts(image: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """An image's document as names and values, a line each; what is long is put in words."""
    for field, value in image.items():
        if field not in _LONG:
            yield _named(field), _in_words(field, value)
    report = image.get("report") or {}
    yield from _cloud_init(report.get("cloud_init"))
    yield from _check(report.get("check"))
    yield from certificate(image.get("certificate"), image.get("sha256"))


def _named(field: str) -> str:
    for unit in _UNITS:
        field = field.removesuffix(unit)
    return field.replace("_", " ")


def _in_words(field: str, value: Any) -> object:  # noqa: ANN401 - any JSON
    """A value with its unit; nothing where there is nothing to tell."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        if field == "deactivation":
            return f"by {value['by']}, {value['at']}: {value['why']}"
        return ", ".join(f"{name}={one}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if value is not None:
        for unit, words in _UNITS.items():
            if field.endswith(unit):
                return words(value)
    return value


def _cloud_init(seen: Mapping[str, Any] | None) -> Iterator[tuple[str, object]]:
    """An image's cloud-init: a module is marked that is listed, but not there."""
    if not seen:
        return
    state = "" if seen["enabled"] else ", switched off"
    yield "cloud-init", f"{seen['version']}{state}"
    yield "data sources", ", ".join(seen["datasources"]) or "all that it knows"
    for stage, modules in seen["stages"].items():
        names = (
            one["name"]
            + (f" ({one['frequency']})" if one["frequency"] else "")
            + ("" if one["there"] else " (not there)")
            for one in modules
        )
        yield f"stage {stage}", ", ".join(names)


def _check(report: Mapping[str, Any] | None) -> Iterator[tuple[str, object]]:
    """The last static check: which Windows it is, and each point that is not as it should be."""
    if not report or not report["findings"]:
        return
    for one in report["findings"]:
        if one["point"] == "windows" and one["verdict"] != "fail":
            yield "windows", "; ".join(one["evidence"])
    yield "checked", _sum(report)
    for one in report["findings"]:
        if one["verdict"] != "pass":
            yield f"check {one['verdict']}", f"{one['title']}: {'; '.join(one['evidence'])}"
            yield "  what to do", one["hint"]


def check(report: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """A static check in full: each point with its evidence, and what to do where it failed."""
    yield "checked", _sum(report)
    for one in report["findings"]:
        yield one["verdict"], f"{one['title']}: {'; '.join(one['evidence'])}"
        if one["verdict"] != "pass":
            yield "  what to do", one["hint"]


def _sum(report: Mapping[str, Any]) -> str:
    counts = _counts(one["verdict"] for one in report["findings"])
    at = datetime.fromisoformat(report["checked_at"]).isoformat(" ", "seconds")
    return f"{counts} ({at}, by {report['method']})"


def certificate(held: Mapping[str, Any] | None, sha256: object) -> Iterator[tuple[str, object]]:
    """A certificate: what it says in a word, what it was tested with, and each test.

    Args:
        held: The certificate's document; None where there is none.
        sha256: The image's; a certificate may be of another file.
    """
    if not held:
        return
    word = "passed" if held["passed"] else "not passed"
    other = "" if held["sha256"] == sha256 else ", of another file"
    counts = _counts(one["verdict"] for one in held["tests"])
    at = datetime.fromisoformat(held["certified_at"]).isoformat(" ", "seconds")
    yield "certificate", f"{word}{other}: {counts} ({at}, flavor {held['flavor']})"
    known = held["versions"].items()
    yield "tested with", ", ".join(f"{_OF_THE_GUEST.get(name, name)} {one}" for name, one in known)
    for one in held["tests"]:
        yield f"test {one['verdict']}", f"{one['title']}: {'; '.join(one['evidence'])}"
        yield "  what to do", one["hint"]


def _counts(verdicts: Iterable[str]) -> str:
    return ", ".join(f"{count} {verdict}" for verdict, count in Counter(verdicts).items())

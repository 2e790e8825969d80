"""What `fifty image show` tells on a terminal of the longer things that are known of an image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

_LONG = ("report", "certificate")


def facts(image: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """An image's document as names and values, a line each; what is long is put in words."""
    for field, value in image.items():
        if field not in _LONG:
            yield field.replace("_", " "), value
    report = image.get("report") or {}
    yield from _cloud_init(report.get("cloud_init"))
    yield from _check(report.get("check"))
    yield from _certificate(image.get("certificate"), image.get("sha256"))


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
    """The last static check: how many points, and each that is not as it should be."""
    if not report or not report["findings"]:
        return
    verdicts = Counter(one["verdict"] for one in report["findings"])
    counts = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())
    yield "checked", f"{counts} ({report['checked_at']}, by {report['method']})"
    for one in report["findings"]:
        if one["verdict"] != "pass":
            evidence = "; ".join(one["evidence"])
            yield f"check {one['verdict']}", f"{one['title']}: {evidence}"


def _certificate(held: Mapping[str, Any] | None, sha256: object) -> Iterator[tuple[str, object]]:
    """The certificate: what it says in a word, what it was tested with, and each test."""
    if not held:
        return
    word = "passed" if held["passed"] else "not passed"
    other = "" if held["sha256"] == sha256 else ", of another file"
    yield "certificate", f"{word}{other} ({held['certified_at']}, flavor {held['flavor']})"
    yield "tested with", ", ".join(f"{name} {one}" for name, one in held["versions"].items())
    for one in held["tests"]:
        yield f"test {one['verdict']}", f"{one['title']}: {'; '.join(one['evidence'])}"

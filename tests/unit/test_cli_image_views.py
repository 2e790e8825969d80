"""What `fifty image show` tells of an image's cloud-init."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from blocks.images.cloud_init import CloudInit, Module
from deployments.cli import output
from deployments.cli.image_views import check, facts
from tests.unit.test_windows_check import looked, whole


def test_stages_are_told_a_line_each_and_what_is_missing_is_marked() -> None:
    seen = CloudInit(
        version="22.4.2",
        enabled=False,
        datasources=("ConfigDrive", "None"),
        stages={
            "init": (Module(name="growpart"), Module(name="migrator", there=False)),
            "final": (Module(name="scripts-user", frequency="always"),),
        },
    )
    image = {"name": "deb", "login_user": "debian", "report": {"cloud_init": seen.model_dump()}}
    assert list(facts(image)) == [
        ("name", "deb"),
        ("login user", "debian"),
        ("cloud-init", "22.4.2, switched off"),
        ("data sources", "ConfigDrive, None"),
        ("stage init", "growpart, migrator (not there)"),
        ("stage final", "scripts-user (always)"),
    ]


def test_an_image_that_was_not_looked_into_has_none_of_it() -> None:
    nothing: tuple[dict[str, Any] | None, ...] = (None, {}, {"check": {"findings": []}})
    for report in nothing:
        assert list(facts({"name": "micro", "report": report})) == [("name", "micro")]


def test_of_a_check_what_did_not_pass_is_told_a_line_each() -> None:
    point = {"point": "x", "title": "No keys", "evidence": ["/a", "/b"], "hint": "remove them"}
    findings = [{**point, "verdict": verdict} for verdict in ("fail", "pass", "pass")]
    check = {"findings": findings, "checked_at": "2026-11-22", "method": "debugfs"}
    assert list(facts({"name": "micro", "report": {"check": check}})) == [
        ("name", "micro"),
        ("checked", "1 fail, 2 pass (2026-11-22 00:00:00, by debugfs)"),
        ("check fail", "No keys: /a; /b"),
        ("  what to do", "remove them"),
    ]


@pytest.mark.parametrize("verdict", ["pass", "warn", "fail", "unknown"])
def test_of_a_windows_it_is_told_which_one(verdict: str, tmp_path: Path) -> None:
    hives = whole()
    current = hives["SOFTWARE"]["Microsoft"]["Windows NT"]["CurrentVersion"]
    if verdict == "warn":
        current["EditionID"] = "ServerStandardEval"
    if verdict == "fail":
        del current["ProductName"]
    if verdict == "unknown":
        del hives["BCD"]
    findings = [one.model_dump(mode="json") for one in looked(tmp_path, hives).values()]
    check = {"findings": findings, "checked_at": "2026-11-22", "method": "ntfscat"}
    told = list(facts({"name": "server", "os": "windows", "report": {"check": check}}))
    which = [value for name, value in told if name == "windows"]
    assert (
        which
        == {
            "pass": ["Windows Server 2022 Standard, build 20348"],
            "warn": ["Windows Server 2022 Standard, build 20348; EditionID: ServerStandardEval"],
            "fail": [],
            "unknown": ["Windows Server 2022 Standard, build 20348"],
        }[verdict]
    )


def test_of_a_certificate_each_test_is_told_a_line_each() -> None:
    """And under what did not pass, what to do about it."""
    zone = {"title": "the time zone is right", "evidence": ["date", "UTC"]}
    held = {
        "sha256": "a",
        "certified_at": "2026-11-23T03:14:15.926535Z",
        "passed": False,
        "flavor": "tiny",
        "versions": {"qemu": "7.2", "kernel": "6.1"},
        "tests": [
            {**zone, "verdict": "pass", "hint": ""},
            {**zone, "verdict": "fail", "hint": "set it"},
            {**zone, "verdict": "pass", "hint": ""},
        ],
    }
    assert [pair for pair in facts({"sha256": "a", "certificate": held}) if pair[1]][1:] == [
        ("certificate", "not passed: 2 pass, 1 fail (2026-11-23 03:14:15+00:00, flavor tiny)"),
        ("tested with", "qemu 7.2, the guest's kernel 6.1"),
        ("test pass", "the time zone is right: date; UTC"),
        ("test fail", "the time zone is right: date; UTC"),
        ("  what to do", "set it"),
        ("test pass", "the time zone is right: date; UTC"),
    ]
    [_sum, (_name, told), *_rest] = facts({"sha256": "b", "certificate": {**held, "passed": True}})
    assert str(told).startswith("passed, of another file: 2 pass, 1 fail (")


def test_figures_have_their_units_and_what_is_empty_is_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    image = {
        "size_bytes": 3 << 19,
        "min_disk_gib": 2,
        "min_ram_mib": 0,
        "boot_timeout_s": 300,
        "encrypted": False,
        "injectable": True,
        "properties": {"hw_disk_bus": "virtio", "x": "y"},
        "shared_with": ["a", "b"],
        "parent_id": None,
        "deactivation": {"by": "default (admin)", "why": "a hole", "at": "2026-11-23"},
    }
    told = dict(facts(image))
    assert told == {
        "size": "1.5 MiB (1572864 bytes)",
        "min disk": "2 GiB",
        "min ram": "0 MiB",
        "boot timeout": "300 s",
        "encrypted": "no",
        "injectable": "yes",
        "properties": "hw_disk_bus=virtio, x=y",
        "shared with": "a, b",
        "parent id": None,
        "deactivation": "by default (admin), 2026-11-23: a hole",
    }
    output.facts(facts({"name": "x", "properties": {}, "shared_with": []}))
    assert capsys.readouterr().out == "name  x\n"


def test_a_check_in_full_tells_each_point_and_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    evidence = ["/etc/fstab names no device that another machine would not have", "one more"]
    point = {"title": "fstab is by label", "verdict": "pass", "evidence": evidence, "hint": "none"}
    failed = {**point, "verdict": "fail", "hint": "write LABEL= or UUID= into it"}
    findings = [point, failed]
    report = {"findings": findings, "checked_at": "2026-11-22T10:00:00.5Z", "method": "debugfs"}
    output.facts(check(report))
    text = f"fstab is by label: {evidence[0]}; {evidence[1]}"
    lines = [
        "checked       1 pass, 1 fail (2026-11-22 10:00:00+00:00, by debugfs)",
        f"pass          {text}",
        f"fail          {text}",
        "  what to do  write LABEL= or UUID= into it",
    ]
    assert capsys.readouterr().out.splitlines() == lines
    # On a terminal the lines hang, and no word is broken.
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    output.facts(check(report))
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 60
    assert " ".join(shown.split()) == " ".join("\n".join(lines).split())
    assert shown.splitlines()[3].startswith(" " * 14 + "that")

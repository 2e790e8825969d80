"""How the seed's eleven tests are decided: by evidence as two guests gave it, broken in one point.

What is asked in a guest is one script: it is run here, on this machine, too.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from blocks.images.certification import (
    INSIDE,
    TESTS,
    Certificate,
    Login,
    Outcome,
    Trial,
    Verdict,
    Wanted,
    boot_log,
    certify,
    key_login,
    not_run,
    snapshot,
    volume,
    why_not_certified,
)
from blocks.images.certification.acts import kept, read_volume, write_volume
from blocks.images.certification.probe import answers, script
from blocks.resources import Image, ImageFormat

AT = datetime(2026, 11, 22, 23, 0, tzinfo=UTC)
EPOCH = int(AT.timestamp())
TOKEN = "5f1d2c"

#: As micro answers.
MICRO: Mapping[str, str] = {
    "agent": "",
    "result": "cat: can't open '/run/cloud-init/result.json': No such file or directory",
    "status": "cat: can't open '/run/cloud-init/status.json': No such file or directory",
    "script": TOKEN,
    "injected": f"{TOKEN}\nexit 0",
    "hostname": "trial",
    "clock": f"{EPOCH + 1} +0000 UTC",
    "root": "Filesystem           1024-blocks    Used Available Capacity Mounted on\n"
    "/dev/vda1              1020000     21204    998796   2% /",
    "fstab": "",
    "mounts": "/dev/root / ext4 rw,noatime 0 0\nproc /proc proc rw,relatime 0 0\n"
    "run /run tmpfs rw,relatime,mode=755 0 0\ntmp /tmp tmpfs rw,relatime 0 0",
    "mount-a": "exit 0",
    "tmp": "",
    "kernel": "6.1.0-41-cloud-amd64",
    "end": "all",
}
RESULT = {"v1": {"datasource": "DataSourceConfigDrive [net,ver=2][source=/dev/vdz]", "errors": []}}
#: And a Debian with cloud-init.
DEBIAN: Mapping[str, str] = {
    **MICRO,
    "agent": "/usr/bin/cloud-init",
    "result": json.dumps(RESULT, indent=1),
    "status": '{"v1": {"stage": null}}',
    "hostname": "trial.example",
    "root": "Filesystem     1024-blocks   Used Available Capacity Mounted on\n"
    "/dev/vda1         5027864 640204   4110588      14% /",
    "fstab": "# made by mmdebstrap\nLABEL=root / ext4 errors=remount-ro 0 1\n"
    "tmpfs /tmp tmpfs defaults 0 0\nUUID=0a-1b none swap sw 0 0\nLABEL=old /old ext4 noauto 0 0",
    "mounts": "/dev/vda1 / ext4 rw,relatime,errors=remount-ro 0 0\ntmpfs /tmp tmpfs rw 0 0",
    "tmp": "systemd-private-0c1f-systemd-logind.service-Xa\n.X11-unix",
    "release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian',
}
WANTED = Wanted(
    name="trial", disk_gib=1, zone="UTC", at=AT, path="/etc/it", injected=TOKEN,
    why_not_injected="", script=TOKEN, marker="FIFTY-MARK ready",
)  # fmt: skip
GUESTS = {"micro": (MICRO, WANTED), "debian": (DEBIAN, replace(WANTED, disk_gib=5, marker=""))}
LOGIN = Login(banner="SSH-2.0-dropbear", let_in=True, said="", stranger=False)
CONSOLE = (("firmware", "SeaBIOS"), ("boot loader", "EXTLINUX 6.04"), ("init", "FIFTY-MARK init"))
DONE = Trial(["it was done"])


def outcomes(
    said: Mapping[str, str],
    wanted: Wanted = WANTED,
    login: Login = LOGIN,
    console: Sequence[tuple[str, str]] = CONSOLE,
    snapshots: Trial = DONE,
    volumes: Trial = DONE,
) -> list[Outcome]:
    """All eleven, as the flow decides them."""
    inside = [test(said, wanted) for test in INSIDE.values()]
    rest = [key_login(login), boot_log(console), snapshot(snapshots), volume(volumes)]
    return [*inside, *rest]


def of(verdict: Verdict, found: Sequence[Outcome]) -> set[str]:
    return {one.test for one in found if one.verdict is verdict}


@pytest.mark.parametrize("guest", GUESTS)
def test_a_sound_guest_passes_all_with_evidence(guest: str) -> None:
    found = outcomes(*GUESTS[guest])
    assert of(Verdict.PASS, found) == set(TESTS)
    assert all(one.evidence and one.title == TESTS[one.test] for one in found)


def result(**changed: Any) -> str:  # noqa: ANN401 - of a JSON document
    return json.dumps({"v1": {**RESULT["v1"], **changed}})


#: What a guest of a broken image answers, by the test that has to fail; for each guest.
BROKEN: Sequence[tuple[str, str, Mapping[str, str]]] = (
    ("injected-file", "micro", {"injected": "cat: can't open '/etc/x': No such file\nexit 1"}),
    ("injected-file", "micro", {"injected": "something else\nexit 0"}),
    ("injected-file", "micro", {"injected": ""}),
    ("cloud-init", "micro", {"script": "cat: can't open '/run/fifty': No such file"}),
    ("cloud-init", "debian", {"result": "cat: /run/cloud-init/result.json: No such file"}),
    ("cloud-init", "debian", {"result": result(errors=["('ssh', OSError(2))"])}),
    ("cloud-init", "debian", {"result": result(datasource="DataSourceNone")}),
    ("cloud-init", "debian", {"result": '{"v1": [1]}'}),
    ("cloud-init", "debian", {"result": "[" * 100_000}),
    ("cloud-init", "debian", {"script": ""}),
    ("root-size", "micro", {"root": "x\n/dev/vda1 43008 21204 21804 50% /"}),
    ("root-size", "debian", {"root": "x\n/dev/vda1 1400000 640204 700000 48% /"}),
    ("root-size", "debian", {"root": "sh: df: not found"}),
    ("host-name", "micro", {"hostname": "localhost"}),
    ("host-name", "debian", {"hostname": ""}),
    ("time-zone", "micro", {"clock": f"{EPOCH} +0200 CEST"}),
    ("time-zone", "micro", {"clock": f"{EPOCH + 7200} +0000 UTC"}),
    ("time-zone", "debian", {"clock": "never"}),
    ("time-zone", "debian", {"clock": f"{'9' * 4000} +0000 UTC"}),
    ("root-size", "debian", {"root": f"x\n/dev/vda1 {'9' * 4000} 1 1 48% /"}),
    ("fstab", "micro", {"mounts": "/dev/root / ext4 ro,noatime 0 0"}),
    ("fstab", "micro", {"fstab": "LABEL=gone /gone ext4 defaults 0 2"}),
    ("fstab", "micro", {"fstab": "/dev/vda1 / ext4 defaults 0 1"}),
    ("fstab", "micro", {"fstab": "LABEL=root /"}),
    ("fstab", "debian", {"mount-a": "mount: /old: can't find LABEL=old.\nexit 32"}),
    ("fstab", "debian", {"mounts": "/dev/vda1 / ext4 rw 0 0"}),
    ("fstab", "debian", {"mount-a": ""}),
    ("tmp", "micro", {"tmp": "left-behind"}),
    ("tmp", "debian", {"tmp": "systemd-private-0c1f-x.service-Xa\nbuild.log"}),
)  # fmt: skip


@pytest.mark.parametrize(("test", "guest", "changed"), BROKEN)
def test_a_broken_guest_fails_exactly_that_test(
    test: str, guest: str, changed: Mapping[str, str]
) -> None:
    said, wanted = GUESTS[guest]
    found = outcomes({**said, **changed}, wanted)
    assert of(Verdict.FAIL, found) == {test}
    assert of(Verdict.PASS, found) == set(TESTS) - {test}
    # An operator is told what to do, where there is something to be done.
    assert all(bool(one.hint) == (one.test == test) for one in found)


#: What is seen of it from outside, by the test that has to fail.
FROM_OUTSIDE: Mapping[str, Callable[[], list[Outcome]]] = {
    "key-login": lambda: outcomes(MICRO, login=replace(LOGIN, stranger=True)),
    "console": lambda: outcomes(MICRO, console=CONSOLE[:2]),
    "snapshot": lambda: outcomes(MICRO, snapshots=Trial(["taken"], "it does not answer")),
    "volume": lambda: outcomes(MICRO, volumes=Trial([], "no disk has appeared")),
}


@pytest.mark.parametrize("test", FROM_OUTSIDE)
def test_what_is_seen_from_outside_fails_exactly_that_test(test: str) -> None:
    found = FROM_OUTSIDE[test]()
    assert of(Verdict.FAIL, found) == {test}
    [failed] = [one for one in found if one.test == test]
    assert any(word in failed.evidence[-1] for word in ("nobody gave", "kernel", "answer", "disk"))
    assert failed.hint
    assert of(Verdict.PASS, found) == set(TESTS) - {test}


def test_who_cannot_log_in_can_ask_nothing() -> None:
    refused = Login(
        "SSH-2.0-x", let_in=False, said="Permission denied (publickey).", stranger=False
    )
    asked = not_run("nobody can log in", [*INSIDE, "snapshot", "volume"])
    found = [key_login(refused), boot_log(CONSOLE), *asked]
    assert of(Verdict.FAIL, found) == {"key-login"}
    assert of(Verdict.PASS, found) == {"console"}
    [login] = [one for one in found if one.test == "key-login"]
    assert "Permission denied" in login.evidence[0]
    silent = Login(None, let_in=False, said="", stranger=False, console=["Kernel panic"])
    assert "Kernel panic" in key_login(silent).evidence[0]
    assert not certify(image(), AT, "tiny", {}, found).passed


def test_without_step_30_there_is_no_injected_file_to_look_for() -> None:
    wanted = replace(WANTED, injected=None, why_not_injected="it is encrypted")
    found = outcomes({**MICRO, "injected": "cat: no such file\nexit 1"}, wanted)
    assert of(Verdict.NOT_APPLICABLE, found) == {"injected-file"}
    assert certify(image(), AT, "tiny", {}, found).passed


def test_another_zone_than_utc_is_right_where_it_was_asked_for() -> None:
    vienna = replace(WANTED, zone="Europe/Vienna")
    assert of(Verdict.FAIL, outcomes(MICRO, vienna)) == {"time-zone"}
    assert not of(Verdict.FAIL, outcomes({**MICRO, "clock": f"{EPOCH} +0100 CET"}, vienna))


def test_a_guest_that_says_nothing_passes_nothing_inside() -> None:
    assert of(Verdict.FAIL, outcomes({})) == set(INSIDE)


def image(**changed: Any) -> Image:  # noqa: ANN401 - fields of many types
    document = {
        "id": "i", "tenant_id": "t", "name": "micro", "format": ImageFormat.QCOW2,
        "sha256": "a" * 64, "size_bytes": 1, "virtual_size_bytes": 1, "path": "/nowhere",
    }  # fmt: skip
    return Image.model_validate({**document, **changed})


def test_a_certificate_is_for_one_file_and_for_all_tests() -> None:
    good = certify(image(), AT, "tiny", {"qemu": "7.2"}, outcomes(MICRO))
    assert good.passed and good.sha256 == "a" * 64
    assert [one.test for one in good.tests] == list(TESTS)
    held = good.model_dump(mode="json")
    assert Certificate.model_validate(held) == good
    assert why_not_certified(image(certificate=held)) is None
    assert why_not_certified(image()) == "it has no certificate"
    other = why_not_certified(image(certificate=held, sha256="b" * 64))
    assert other == "its certificate is for another file"
    failed = certify(image(), AT, "tiny", {}, outcomes({**MICRO, "tmp": "left"}))
    why = why_not_certified(image(certificate=failed.model_dump(mode="json")))
    assert why == "its certification failed: it is not so that the directory /tmp is clean"
    assert not certify(image(), AT, "tiny", {}, outcomes(MICRO)[1:]).passed


def shell(text: str, name: str = "sh") -> subprocess.CompletedProcess[str]:
    words = [*name.split(), "-c", text]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("name", ["dash", "bash", "busybox sh"])
def test_the_script_asks_all_in_any_shell(name: str, tmp_path: Path) -> None:
    injected = tmp_path / "it is"
    injected.write_text(f"{TOKEN}\n")
    text = script("mark7", PurePosixPath(injected), 0)
    # This machine's own file systems are no guest's.
    said = answers(shell(text.replace("mount -a", "echo asked"), name).stdout, "mark7")
    assert said.keys() >= {*MICRO, "release"}
    assert said["injected"] == f"{TOKEN}\nexit 0"
    assert said["hostname"] == shell("hostname").stdout.strip()
    assert said["mount-a"] == ("asked\nexit 0" if Path("/etc/fstab").exists() else "exit 0")
    assert said["end"] == "all"
    assert all(len(text) <= 4096 for text in said.values())


def test_a_guest_cannot_answer_for_the_marks_it_does_not_know() -> None:
    forged = "mark7 hostname\ntrial\n\nother hostname\nfalse\nmark7 hostname\nagain\n"
    assert answers(forged, "mark7") == {"hostname": "trial\n\nother hostname\nfalse"}
    assert answers("no answer at all", "mark7") == {}


def test_a_volume_that_does_not_appear_is_told() -> None:
    done = shell(write_volume("no such 'serial", "words", 0))
    assert done.returncode == 10
    assert "no such 'serial" in done.stdout
    assert shell(read_volume("no such", 0)).returncode == 10
    assert shell(kept()).returncode != 0


@pytest.mark.parametrize(
    ("broken", "code", "told"),
    [
        ("", 0, "formatted by mkfs.ext4 and written, /dev/vdz"),
        ("mkfs.ext4", 12, "mkfs.ext4 -q -F /dev/vdz: it is broken"),
        ("mount", 13, "/dev/vdz does not mount"),
        ("umount", 14, "it does not unmount"),
    ],
)
def test_the_script_of_a_volume_ends_where_an_act_fails(
    tmp_path: Path, broken: str, code: int, told: str
) -> None:
    disk, programs, mounted = tmp_path / "sys/vdz", tmp_path / "bin", tmp_path / "mounted"
    for folder in (disk, programs):
        folder.mkdir(parents=True)
    (disk / "serial").write_text("4bb67773-a2fe-5c1b-8\n")
    # Nothing of this machine is found, formatted or mounted by it.
    bodies = dict.fromkeys(("mkfs.ext4", "mount", "umount"), "true") | {"id": "echo 0"}
    if broken:
        bodies[broken] = "echo it is broken; false"
    for name, body in bodies.items():
        (programs / name).write_text(f"#!/bin/sh\n{body}\n")
        (programs / name).chmod(0o755)
    text = write_volume("4bb67773-a2fe-5c1b-8", "words", 0)
    text = text.replace("/sys/block", str(tmp_path / "sys"))
    text = text.replace("/run/fifty-volume", str(mounted))
    done = shell(f"PATH={programs}:$PATH\n{text}")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (code, told)
    assert mounted.exists() is (code != 12)
    if code == 0:
        assert (mounted / "written").read_text() == "words\n"

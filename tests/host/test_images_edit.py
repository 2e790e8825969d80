"""`fifty image check` and `fifty image edit`: on images that were imported, and as if built."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployments import daemons
from tests import sessions
from tests.host.image_site import Site
from tests.image_maker import MIB, Part, make_disk, run
from tests.unit.test_image_check import CODE, GOOD, esp
from tests.unit.test_image_generalising import LIVED

pytestmark = pytest.mark.host

STEPS = (22, 23, 24, 25)


@pytest.fixture(name="site", scope="module")
def _site(session_directory: Path, prefect_server: str, libvirtd: str) -> Iterator[Site]:
    del libvirtd
    home = session_directory / "edit"
    daemons.prepare_home(home)
    site = Site(home, prefect_server)
    made = site.fifty("init", "--api-url", prefect_server)
    sessions.note_site(session_directory, made["site"])
    yield site
    site.store.database.dispose()


@pytest.fixture(name="base", scope="module")
def _base(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """An image as it comes from elsewhere: a machine lived in it."""
    tree = {**GOOD, **LIVED}
    root = Part(tree, label="root", line=", bootable", size_mib=24)
    raw = make_disk(tmp_path_factory.mktemp("made") / "disk", [root], boot_code=CODE)
    yield site.fifty("image", "import", "lived", str(raw))
    site.fifty("image", "delete", "lived")
    site.require_nothing()


def inside(image: dict[str, Any], command: str) -> str:
    raw = Path(image["path"]).with_suffix(".seen")
    run("qemu-img", "convert", "-f", image["format"], "-O", "raw", image["path"], raw)
    try:
        run("e2fsck", "-fn", f"{raw}?offset={MIB}")
        return run("debugfs", "-R", command, f"{raw}?offset={MIB}")
    finally:
        raw.unlink()


def digest(image: dict[str, Any]) -> str:
    return hashlib.sha256(Path(image["path"]).read_bytes()).hexdigest()


def test_a_check_tells_what_is_wrong_and_is_kept(site: Site, base: dict[str, Any]) -> None:
    report = site.fifty("image", "check", "lived", code=3)
    verdicts = {one["point"]: one["verdict"] for one in report["findings"]}
    bad = {"fixed-mac", "machine-id", "host-keys", "keys", "state"}
    assert {point for point, verdict in verdicts.items() if verdict == "fail"} == bad
    assert (report["sha256"], report["method"]) == (digest(base), "debugfs")
    shown = site.fifty("image", "show", base["id"])
    assert shown["report"]["check"] == report
    # Step 30 may write into it, now that its file system is known.
    assert not base["injectable"]
    assert shown["injectable"]
    # Looking changes nothing.
    assert digest(shown) == base["sha256"]


def test_a_disk_that_only_uefi_starts_is_told_with_the_command_that_helps(
    site: Site, tmp_path: Path
) -> None:
    root = Part(GOOD, label="root", size_mib=24, modes={"root": 0o700, "tmp": 0o1777})
    raw = make_disk(tmp_path / "disk", [esp(), root], "gpt")
    site.fifty("image", "import", "modern", str(raw))
    try:
        report = site.fifty("image", "check", "modern", code=3)
        failed = [one for one in report["findings"] if one["verdict"] == "fail"]
        assert [one["point"] for one in failed] == ["boot-loader"]
        command = failed[0]["hint"].strip("`").split()
        assert command[0] == "fifty"
        site.fifty(*command[1:])
        report = site.fifty("image", "check", "modern")
        loader = next(one for one in report["findings"] if one["point"] == "boot-loader")
        assert loader["verdict"] == "pass"
        assert "partition 1 holds EFI/BOOT/BOOTX64.EFI" in loader["evidence"]
    finally:
        site.fifty("image", "delete", "modern")


def test_an_edit_makes_a_new_image_and_leaves_the_old_one(
    site: Site, base: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "motd").write_text("hello\n")
    (tmp_path / "motd").chmod(0o640)
    new = site.fifty(
        *("image", "edit", "lived", "fresh", "--generalise", "--version", "2"),
        *("--inject", f"{tmp_path / 'motd'}:/etc/motd", "--remove", "/home/debian/work.txt"),
    )
    assert (new["status"], new["parent_id"], new["version"]) == ("active", base["id"], "2")
    assert new["visibility"] == "private"
    assert digest(new) == new["sha256"] != base["sha256"]
    assert digest(base) == base["sha256"]
    info = json.loads(run("qemu-img", "info", "--output=json", "-f", "qcow2", new["path"]))
    assert "backing-filename" not in info
    assert inside(new, "cat /etc/motd") == "hello\n"
    assert "Mode:  0640" in inside(new, "stat /etc/motd")
    assert "work.txt" not in inside(new, "ls -p /home/debian")
    assert "work.txt" in inside(base, "ls -p /home/debian")
    report = site.fifty("image", "check", "fresh")
    assert {one["verdict"] for one in report["findings"]} == {"pass"}
    entries = site.store.journal.entries(new["id"], site.store.builds.get(new["id"]).generation)
    told = [change.what for entry in entries for change in entry.changes]
    assert any(what.startswith("Generalised (host keys)") for what in told)
    site.fifty("image", "delete", "fresh:2")
    assert digest(base) == base["sha256"]


def test_what_is_wrong_is_refused_and_leaves_nothing(
    site: Site, base: dict[str, Any], tmp_path: Path
) -> None:
    before = site.files()
    (tmp_path / "x").write_text("x")
    file = f"{tmp_path / 'x'}:"
    refused = {
        ("--remove", "/no/such"): "InvalidRequest",
        ("--remove", "/etc/../etc/passwd"): "InvalidRequest",
        ("--remove", "/"): "InvalidRequest",
        ("--inject", f"{file}/etc"): "InvalidRequest",
        ("--inject", f"{file}/etc/passwd/x"): "InvalidRequest",
        ("--method", "loop", "--generalise"): "Denied",
        ("--method", "nbd", "--generalise"): "Denied",
        ("--method", "magic", "--generalise"): "InvalidRequest",
        (): "InvalidRequest",
    }
    for words, error in refused.items():
        answer = site.fifty("image", "edit", "lived", "bad", *words, code=1)
        assert answer["error"] == error, (words, answer)
        assert site.files() == before
    answer = site.fifty("image", "edit", "nothing", "bad", "--generalise", code=1)
    assert answer["error"] == "NotFound"
    answer = site.fifty("image", "edit", "lived", "lived", "--generalise", code=1)
    assert answer["error"] == "Conflict"
    assert [image.name for image in site.store.images.list(None)] == ["lived"]
    assert digest(base) == base["sha256"]


def test_the_kernel_is_let_near_what_was_built_here(site: Site, base: dict[str, Any]) -> None:
    image = site.store.images.get(base["id"])
    site.store.images.put(image.model_copy(update={"recipe": "micro"}))
    try:
        for method in ("loop", "nbd"):
            new = site.fifty("image", "edit", "lived", method, "--generalise", "--method", method)
            # What was made of a trusted one is trusted, too.
            report = site.fifty("image", "check", method, "--method", method)
            assert report["method"] == method
            assert {one["verdict"] for one in report["findings"]} == {"pass"}
            assert "ssh_host" not in inside(new, "ls -p /etc/ssh")
            site.fifty("image", "delete", method)
    finally:
        site.store.images.put(image)


@pytest.mark.slow
def test_killed_in_every_step_it_goes_on(site: Site, base: dict[str, Any]) -> None:
    del base
    before = site.files()
    for step in STEPS:
        for when in ("before", "after"):
            words = ("image", "edit", "lived", f"killed-{step}-{when}", "--generalise")
            done = site.run(*words, FIFTY_FAULT=f"{step}:kill:{when}")
            assert done.returncode == -signal.SIGKILL, done.stderr
    ended = site.fifty("reconcile")["reconciled"]
    assert {one["state"] for one in ended} == {"complete"}
    for image in site.fifty("image", "list"):
        if image["name"].startswith("killed"):
            assert "ssh_host" not in inside(image, "ls -p /etc/ssh")
            site.fifty("image", "delete", image["name"])
    assert site.files() == before


@pytest.mark.slow
def test_a_failure_in_every_step_leaves_nothing(site: Site, base: dict[str, Any]) -> None:
    del base
    before = site.files()
    for step in STEPS:
        words = ("image", "edit", "lived", "failed", "--generalise")
        refused = site.fifty(*words, code=1, FIFTY_FAULT=f"{step}:raise:after")
        assert refused["error"] == "InjectedFault"
        assert site.files() == before

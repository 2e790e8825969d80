"""Images that are booted and tested: the certificate, and that nothing of the trial is left."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from blocks.images.certification import TESTS
from tests.cloud import Cloud
from tests.inventory import differences
from tests.matrix.cases import chosen
from tests.prefect_api import api

pytestmark = pytest.mark.e2e

MICRO = Path(__file__).resolve().parents[2] / "blocks" / "images" / "recipes" / "micro"
INIT = "/sbin/micro-init"
MENU = "/boot/extlinux/extlinux.conf"
ZONE = Path("/usr/share/zoneinfo/Asia/Kolkata")
#: Ends a guest whose clock was set back, as it is for one that is brought back to a snapshot.
WATCHDOG = """
(while sleep 0.2; do
    read -r hardware </sys/class/rtc/rtc0/since_epoch
    [ $((hardware - $(date +%s))) -gt 2 ] && poweroff -f
done) >/dev/null 2>&1 &
say "ready"""
#: Each login takes so long that its clock is set back by more than that on the quickest machine,
#: too. Where taking a snapshot stops it for as long, it is lost by then: the same test fails.
SLOW = "dropbear -s -c 'sleep 4; eval \"$SSH_ORIGINAL_COMMAND\"' -r"


def init(*changes: tuple[str, str]) -> str:
    """micro's init with something else in it."""
    text = (MICRO / "init.sh").read_text()
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def menu(old: str, new: str) -> str:
    """micro's boot menu, with other options for the kernel."""
    [line] = [one for one in (MICRO / "recipe.toml").read_text().splitlines() if old in one]
    options = line.partition('"')[2].rpartition('"')[0]
    return (
        "SERIAL 0 115200\nDEFAULT linux\nPROMPT 0\nTIMEOUT 0\nLABEL linux\n"
        f"  LINUX /boot/vmlinuz\n  INITRD /boot/initrd.img\n  APPEND {options.replace(old, new)}\n"
    )


#: What is broken in micro for each of the tests: what is put into it.
BROKEN: Mapping[str, Mapping[str, str | bytes]] = {
    "key-login": {INIT: init(('echo "$value" >>/root/.ssh/authorized_keys', "true"))},
    "injected-file": {INIT: init(('say "ready', 'rm -f /etc/fifty-certificate\nsay "ready'))},
    "cloud-init": {INIT: init(('[ -s "$drive/user_data" ]', "false"))},
    "root-size": {INIT: init(("resize2fs /dev/vda1 >/run/resize2fs.log 2>&1", "true"))},
    "host-name": {INIT: init(('hostname "$value"', "true"))},
    "time-zone": {"/etc/localtime": ZONE.read_bytes()},
    "fstab": {"/etc/fstab": "LABEL=gone /mnt/config ext4 defaults 0 2\n"},
    "console": {MENU: menu("console=ttyS0", "console=tty0")},
    "tmp": {INIT: init(('say "ready', ': >/tmp/left-behind\nsay "ready'))},
    "snapshot": {INIT: init(('say "ready', WATCHDOG), ("dropbear -s -r", SLOW))},
    # busybox's shell finds its own mke2fs without the link; this comes before it.
    "volume": {"/bin/mkfs.ext4": "#!/bin/sh\necho libext2fs.so.2 is gone >&2\nexit 127\n"},
}
#: Each broken image takes a boot: a run has one of them, unless all are asked for.
ALL = os.environ.get("CERTIFY") == "all"
#: With these step 49 waits in vain, for a login or for the marker on the console: not for long.
IN_VAIN, WAIT_S = ("key-login", "console"), "30"


def of_this_run() -> Sequence[str]:
    """One of them, by the commit; with CERTIFY=all each."""
    names = list(TESTS)
    return names if ALL else [names[zlib.crc32(chosen()[1].encode()) % len(names)]]


@pytest.fixture(name="made")
def _made(cloud: Cloud) -> Iterator[list[str]]:
    """Names of the images that a test made; deleted after its VMs."""
    names: list[str] = []
    yield names
    vms = cloud.json("vm", "list")
    cloud.delete([vm["id"] for vm in vms if vm["image"] in names])
    for name in names:
        cloud.fifty("image", "delete", name)


def verdicts(certificate: Mapping[str, Any]) -> dict[str, str]:
    return {one["test"]: one["verdict"] for one in certificate["tests"]}


def require_nothing(cloud: Cloud, before: dict[str, list[str]]) -> None:
    assert differences(before, cloud.inventory()) == []
    assert not [vm for vm in cloud.json("vm", "list") if vm["name"].startswith("certify-")]
    assert cloud.json("audit")["clean"]


def test_micro_gets_its_certificate_and_nothing_is_left(cloud: Cloud) -> None:
    before = cloud.inventory()
    held = cloud.json("image", "certify", "micro")
    assert verdicts(held) == dict.fromkeys(TESTS, "pass"), held
    assert all(one["evidence"] for one in held["tests"])
    require_nothing(cloud, before)
    image = cloud.json("image", "show", "micro")
    assert image["certificate"] == held
    assert held["sha256"] == image["sha256"]
    assert {"fifty-steps", "qemu", "libvirt", "kernel"} <= held["versions"].keys()
    shown = cloud.fifty("image", "show", "micro")
    assert "certificate" in shown and all(title in shown for title in TESTS.values())
    with certificates_required(cloud):
        # It comes past step 6, whatever is next.
        words = ("vm", "create", "wanted", "--image", "micro", "--network", "lab")
        assert cloud.json(*words, fault="9:raise", code=1)["error"] == "InjectedFault"
    wanted = {"artifacts": {"key": {"any_": ["image-certificate"]}}}
    [artifact] = api("POST", "/artifacts/latest/filter", json=wanted).json()
    assert {row["verdict"] for row in json.loads(artifact["data"])} == {"pass"}
    assert held["sha256"] in artifact["description"]


@pytest.mark.parametrize("test", of_this_run())
def test_a_broken_image_fails_exactly_that_test(
    cloud: Cloud, made: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, test: str
) -> None:
    options = []
    for number, (path, content) in enumerate(BROKEN[test].items()):
        file = tmp_path / str(number)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        file.chmod(0o755)
        options += ["--inject", f"{file}:{path}"]
    name = f"broken-{test}"
    cloud.fifty("image", "edit", "micro", name, *options)
    made.append(name)
    before = cloud.inventory()
    if test in IN_VAIN:
        monkeypatch.setenv("FIFTY_READY_WAIT_S", WAIT_S)
    # What its tenant's policy says to it is seen once a run.
    with denied(cloud, name) if test == of_this_run()[0] else nullcontext():
        held = cloud.json("image", "certify", name, code=3)
    found = verdicts(held)
    failed = [one for one in held["tests"] if one["verdict"] == "fail"]
    assert [one["test"] for one in failed] == [test], held
    others = {"pass"} if test != "key-login" else {"pass", "not run"}
    assert {verdict for one, verdict in found.items() if one != test} == others
    assert not held["passed"]
    shown = cloud.fifty("image", "show", name)
    told = f" {TESTS[test]}: {'; '.join(failed[0]['evidence'])}\n"
    for words in ("not passed: ", "test fail ", told, f"  what to do  {failed[0]['hint']}\n"):
        assert words in shown, words
    require_nothing(cloud, before)


@contextmanager
def denied(cloud: Cloud, name: str) -> Iterator[None]:
    """While the policy wants certified images: an image is denied before and after its trial."""
    create = ("vm", "create", "wanted", "--image", name, "--network", "lab")
    # Nor is one let in that only says that it is a trial.
    forged = f"certify-image/{cloud.json('image', 'show', name)['id']}/1"
    with certificates_required(cloud):
        for asked in (create, (*create, "--request-id", forged)):
            told = cloud.json(*asked, code=1)
            assert (told["error"], "no certificate" in told["message"]) == ("Denied", True)
        yield
        assert "certification failed" in cloud.json(*create, code=1)["message"]


@contextmanager
def certificates_required(cloud: Cloud) -> Iterator[None]:
    """While the tenant's policy wants certified images."""
    cloud.fifty("tenant", "certificates", "default", "required")
    try:
        yield
    finally:
        cloud.fifty("tenant", "certificates", "default", "optional")


@pytest.mark.parametrize("fault", ["45:kill:after", *(["66:kill:after"] if ALL else [])])
def test_killed_midway_the_trial_is_removed_by_the_reconcile(cloud: Cloud, fault: str) -> None:
    """Killed while create-vm makes the trial VM, and when a volume has been tried."""
    before = cloud.inventory()
    held = cloud.json("image", "show", "micro")["certificate"]
    assert cloud.run("image", "certify", "micro", fault=fault).returncode == -9
    assert differences(before, cloud.inventory()) != []
    cloud.fifty("reconcile")
    require_nothing(cloud, before)
    assert cloud.json("image", "show", "micro")["certificate"] == held

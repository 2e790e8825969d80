"""Debian's and Ubuntu's recipes, and a site's own: built, checked, booted, looked at from inside.

debian-12 itself is booted in tests/e2e/test_debian.py. Of the others a run takes one, by the
commit; RECIPES=all takes all of them. The build of debian-12 is killed here.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from blocks.errors import Unsupported
from blocks.images import BuiltImage, DebianRecipe, ImageStore
from blocks.images.exports import mount_points
from blocks.resources import Image
from tests.host.image_guest import GIB, Guest, config_drive
from tests.matrix.cases import chosen

pytestmark = [pytest.mark.host, pytest.mark.slow]

IMAGE_ID = "cccccccc-2222-4333-8444-555555555555"
BUILD = """
import sys
from pathlib import Path
from blocks.images import ImageStore
ImageStore(Path(sys.argv[1])).build("debian-12", sys.argv[2], lambda text: print(text, flush=True))
"""


def processes_in(directory: Path) -> list[str]:
    """Processes that name the directory, or work in it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().decode(errors="replace")
            root = (process / "root").readlink()
            if str(directory) in words or directory in root.parents:
                found.append(words)
    return found


def test_killed_in_mid_build(tmp_path: Path) -> None:
    """Nothing goes on working, nothing stays mounted; what is left can be removed."""
    store = ImageStore(tmp_path / "images")
    words = [sys.executable, "-c", BUILD, str(tmp_path / "images"), IMAGE_ID]
    builder = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    try:
        while not (tmp_path / "images" / "build" / IMAGE_ID / "tree" / "usr").exists():
            assert builder.poll() is None
            time.sleep(0.05)
        assert len(processes_in(tmp_path / "images")) > 1
    finally:
        builder.kill()
        builder.wait()
    deadline = time.monotonic() + 60
    while processes_in(tmp_path / "images"):
        assert time.monotonic() < deadline, processes_in(tmp_path / "images")
        time.sleep(0.05)
    assert [point for point in mount_points() if str(tmp_path) in point] == []
    assert [found.owner for found in store.inventory()] == [IMAGE_ID]
    store.remove_image(IMAGE_ID)
    assert store.inventory() == []


#: What a person would write: see README.
OWN = """base = "debian-12"
title = "Debian 12 with a note"
login_user = "ops"
packages = ["file"]

[[files]]
source = "note.txt"
path = "etc/note"
"""
OTHERS = ("debian-13", "ubuntu", "own")
USER_DATA = """#cloud-config
timezone: Asia/Kolkata
write_files:
  - path: /etc/written-by-cloud-init
    content: "hello from user data\\n"
runcmd:
  - [sh, -c, "hostname > /run/runcmd-ran"]
"""


def of_this_run() -> Sequence[str]:
    """One of them, by the commit; with RECIPES=all each."""
    if os.environ.get("RECIPES") == "all":
        return OTHERS
    return [OTHERS[zlib.crc32(chosen()[1].encode()) % len(OTHERS)]]


def recorded(built: BuiltImage, name: str) -> Image:
    """The image as the catalogue has it."""
    said = built.model_dump(mode="json", exclude={"cloud_init"})
    return Image(**said, id=IMAGE_ID, tenant_id=None, name=name, recipe=name)


@pytest.mark.parametrize("name", of_this_run())
def test_built_checked_and_booted(name: str, tmp_path: Path) -> None:
    own = tmp_path / "recipes" / "own"
    own.mkdir(parents=True)
    (own / "recipe.toml").write_text(OWN)
    (own / "note.txt").write_text("by a recipe of one's own\n")
    store = ImageStore(tmp_path / "images", recipes=own.parent)
    recipe = store.recipes.find(name)
    assert isinstance(recipe, DebianRecipe)
    try:
        built = store.build(name, IMAGE_ID, print)
    except Unsupported as lacking:
        if name != "ubuntu":
            raise
        pytest.skip(f"no source of Ubuntu's packages within reach: {lacking}")
    assert built.cloud_init is not None
    assert all(one.there for modules in built.cloud_init.stages.values() for one in modules)
    assert store.cloud_config_schema(IMAGE_ID) is not None
    report = store.check(recorded(built, name), trusted=True)
    assert {one.verdict for one in report.findings} == {"pass"}, report.findings

    key = tmp_path / "key"
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
    subprocess.run(words, check=True)
    drive = config_drive(IMAGE_ID, key.with_suffix(".pub").read_text(), user_data=USER_DATA)
    work = tmp_path / "guest"
    work.mkdir()
    # With the memory that the recipe says is enough.
    with Guest(store, built, work, drive, ram_mib=recipe.min_ram_mib, disk_gib=4) as guest:
        guest.wait_until_ready()

        def says(command: str) -> str:
            return guest.ssh(command, key).strip()

        assert says("cloud-init status") == "status: done"
        assert "ConfigDrive" in says("cat /run/cloud-init/result.json")
        # As the distribution has it: all its files, and its configuration.
        assert says("dpkg --verify cloud-init") == ""
        assert says("id -un; sudo id -un").split() == [recipe.login_user, "root"]
        assert f"VERSION_CODENAME={recipe.suite}\n" in guest.ssh("cat /etc/os-release", key)
        assert says("hostname; cat /run/runcmd-ran").split() == ["hello", "hello"]
        assert says("cat /etc/written-by-cloud-init") == "hello from user data"
        assert says("date +%Z") == "IST"
        assert 3.6 * GIB < int(says("df -B1 --output=size /").splitlines()[-1]) <= 4 * GIB
        assert says("systemctl --failed --no-legend --plain") == ""
        assert len(says("cat /etc/machine-id")) == 32
        assert "mtu 1442" in says("ip link")
        if name == "own":
            assert says("cat /etc/note") == "by a recipe of one's own"
            assert says("dpkg-query -Wf '${Status}' file") == "install ok installed"

"""The build of debian-12, killed: the image itself is booted in tests/e2e/test_debian.py."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import pytest

from blocks.images import ImageStore
from blocks.images.exports import mount_points

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

"""Hostile images: none is accepted, and none makes another file be read."""

from __future__ import annotations

import resource
import subprocess
from pathlib import Path

import pytest

from blocks.errors import NotFound, UnsafeImage
from blocks.images import inspect
from blocks.resources.image import SourceFormat
from tests.unit.hostile_images import (
    HOSTILE,
    QCOW2,
    RAW,
    SIZE,
    SOUND,
    Hostile,
    Make,
    internal_luks,
)


def test_there_are_enough_of_them() -> None:
    assert len(HOSTILE) >= 60
    assert len({one.name for one in HOSTILE}) == len(HOSTILE)


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda one: one.name)
def test_hostile_image_is_refused(tmp_path: Path, hostile: Hostile) -> None:
    path = hostile.make(tmp_path)
    secret = tmp_path / "secret"
    before = secret.stat().st_atime_ns if secret.exists() else None
    with pytest.raises(UnsafeImage):
        inspect(path, hostile.declared)
    # Not even opened to be read: its time of access is what it was.
    assert before is None or secret.stat().st_atime_ns == before


@pytest.mark.parametrize(("name", "declared", "make"), SOUND, ids=[one[0] for one in SOUND])
def test_sound_images_pass(tmp_path: Path, name: str, declared: SourceFormat, make: Make) -> None:
    del name
    seen = inspect(make(tmp_path), declared)
    assert (seen.format, seen.virtual_size_bytes, seen.encrypted) == (declared, SIZE, False)


def test_what_is_encrypted_is_said_to_be(tmp_path: Path) -> None:
    path = internal_luks(tmp_path)
    assert inspect(path, QCOW2, encrypted=True).encrypted
    with pytest.raises(UnsafeImage, match="is encrypted"):
        inspect(path, QCOW2)
    path.unlink()
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "1M"], check=True)
    with pytest.raises(UnsafeImage, match="is not encrypted"):
        inspect(path, QCOW2, encrypted=True)


def test_inspecting_takes_little_memory(tmp_path: Path) -> None:
    """Two images of 2 TiB, whose tables have two million entries."""
    for form, options, size in (("vdi", "static=off", "2T"), ("vhdx", "block_size=1M", "2T")):
        path = tmp_path / form
        words = ["qemu-img", "create", "-q", "-f", form, "-o", options, str(path), size]
        subprocess.run(words, check=True)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        inspect(path, SourceFormat(form))
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        inspect(tmp_path / "none", RAW)

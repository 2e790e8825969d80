"""Hostile images: none is accepted, and none makes another file be read."""

from __future__ import annotations

import resource
import struct
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
    VDI,
    VMDK,
    Hostile,
    Make,
    image,
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


def vdi_of_a_vast_map(directory: Path) -> Path:
    """With holes for a map of 4 GB, each entry of which stands for a block."""
    path = image("vdi")(directory)
    blocks = 10**9
    with path.open("r+b") as file:
        file.truncate(2**33)
        for offset, form, value in (
            (344, "<I", 2**32 - 512),
            (368, "<Q", blocks << 20),
            (384, "<I", blocks),
            (388, "<I", blocks),
        ):
            file.seek(offset)
            file.write(struct.pack(form, value))
    return path


def vmdk_with(directory: Path, old: bytes, new: bytes) -> Path:
    """With other words in its descriptor."""
    path = image("vmdk")(directory)
    with path.open("r+b") as file:
        file.seek(28)
        start, length = (512 * value for value in struct.unpack("<QQ", file.read(16)))
        file.seek(start)
        text = file.read(length).rstrip(b"\0")
        assert old in text
        file.seek(start)
        file.write(text.replace(old, new).ljust(length, b"\0"))
    return path


def vmdk_of_tiny_tables(directory: Path) -> Path:
    """Of a terabyte, in grain tables of one grain each: holes for a directory of a gigabyte."""
    capacity = 2**31
    path = vmdk_with(directory, b"RW 131072 ", b"RW %d " % capacity)
    with path.open("r+b") as file:
        file.truncate(2**31)
        for offset, form, value in ((12, "<QQ", (capacity, 8)), (44, "<I", (1,))):
            file.seek(offset)
            file.write(struct.pack(form, *value))
    return path


def vmdk_of_a_long_number(directory: Path) -> Path:
    """With more digits than Python takes for a number."""
    return vmdk_with(directory, b"RW 131072 ", b"RW %s " % (b"9" * 5000))


@pytest.mark.parametrize(
    ("form", "make", "why"),
    [
        (VDI, vdi_of_a_vast_map, "the vdi has a virtual size"),
        (VMDK, vmdk_of_tiny_tables, "grain tables"),
        (VMDK, vmdk_of_a_long_number, "extents"),
    ],
)
def test_what_would_take_long_is_not_begun(
    tmp_path: Path, form: SourceFormat, make: Make, why: str
) -> None:
    with pytest.raises(UnsafeImage, match=why):
        inspect(make(tmp_path), form)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        inspect(tmp_path / "none", RAW)

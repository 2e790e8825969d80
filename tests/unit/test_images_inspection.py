"""Hostile images: none is accepted, and none makes another file be read."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from blocks.errors import NotFound, UnsafeImage
from blocks.images import inspect
from blocks.resources.image import ImageFormat

RAW, QCOW2 = ImageFormat.RAW, ImageFormat.QCOW2
SIZE = 64 * 1024 * 1024


def qemu_img(*words: str | Path) -> None:
    subprocess.run(["qemu-img", *words], check=True, capture_output=True)


def qcow2(path: Path, *options: str) -> Path:
    qemu_img("create", "-q", "-f", "qcow2", *options, path, str(SIZE))
    return path


def patched(path: Path, offset: int, form: str, *values: int) -> Path:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(struct.pack(form, *values))
    return path


def backing(directory: Path) -> Path:
    secret = directory / "secret"
    secret.write_bytes(b"secret" * 1000)
    path = directory / "image"
    qemu_img("create", "-q", "-f", "qcow2", "-b", secret, "-F", "raw", path, "1M")
    return path


def backing_json(directory: Path) -> Path:
    path = directory / "image"
    name = 'json:{"driver":"raw","file":{"driver":"file","filename":"/etc/shadow"}}'
    qemu_img("create", "-q", "-u", "-f", "qcow2", "-b", name, "-F", "raw", path, "1M")
    return path


def data_file(directory: Path) -> Path:
    return qcow2(directory / "image", "-o", f"data_file={directory / 'data'}")


def data_file_bit_hidden(directory: Path) -> Path:
    """The header extension without its feature bit."""
    return patched(data_file(directory), 72, ">Q", 0)


def vmdk_descriptor(directory: Path) -> Path:
    path = directory / "image"
    text = '# Disk DescriptorFile\nversion=1\nRW 8 FLAT "/etc/shadow" 0\n'
    path.write_bytes(text.encode().ljust(512 * 20, b"\n"))
    return path


def vmdk_descriptor_disguised(directory: Path) -> Path:
    path = directory / "image"
    text = '\n# hello\n\nversion=1\nRW 8 FLAT "/etc/shadow" 0\n'
    path.write_bytes(text.encode().ljust(512 * 20, b"\n"))
    return path


def other_format(name: str) -> Callable[[Path], Path]:
    def make(directory: Path) -> Path:
        path = directory / "image"
        qemu_img("create", "-q", "-f", name, path, "1M")
        return path

    make.__name__ = name
    return make


def header(name: str, offset: int, form: str, *values: int) -> Callable[[Path], Path]:
    def make(directory: Path) -> Path:
        return patched(qcow2(directory / "image"), offset, form, *values)

    make.__name__ = name
    return make


def cut_off(directory: Path) -> Path:
    path = qcow2(directory / "image")
    os.truncate(path, 90)
    return path


def link(directory: Path) -> Path:
    qcow2(directory / "other")
    (directory / "image").symlink_to("other")
    return directory / "image"


def fifo(directory: Path) -> Path:
    os.mkfifo(directory / "image")
    return directory / "image"


def empty(directory: Path) -> Path:
    (directory / "image").touch()
    return directory / "image"


def odd_size(directory: Path) -> Path:
    (directory / "image").write_bytes(bytes(1000))
    return directory / "image"


def endless_extension(directory: Path) -> Path:
    return patched(qcow2(directory / "image"), 112, ">II", 0x12345678, 0xFFFFFFF0)


HOSTILE: list[tuple[Callable[[Path], Path], ImageFormat]] = [
    (backing, QCOW2),
    (backing_json, QCOW2),
    (data_file, QCOW2),
    (data_file_bit_hidden, QCOW2),
    (cut_off, QCOW2),
    (link, QCOW2),
    (fifo, RAW),
    (empty, RAW),
    (empty, QCOW2),
    (odd_size, RAW),
    (endless_extension, QCOW2),
    (vmdk_descriptor, RAW),
    (vmdk_descriptor_disguised, RAW),
    (lambda directory: qcow2(directory / "image"), RAW),
    *((other_format(name), RAW) for name in ("vmdk", "vdi", "vhdx", "vpc", "qed")),
    *((other_format(name), QCOW2) for name in ("vmdk", "raw")),
    (header("version", 4, ">I", 4), QCOW2),
    (header("encrypted", 32, ">I", 2), QCOW2),
    (header("clusters of 2^40", 20, ">I", 40), QCOW2),
    (header("an exabyte", 24, ">Q", 1 << 60), QCOW2),
    (header("nothing", 24, ">Q", 0), QCOW2),
    (header("half a sector", 24, ">Q", 1000), QCOW2),
    (header("L1 entries", 36, ">I", 0x7FFFFFFF), QCOW2),
    (header("L1 outside", 40, ">Q", 1 << 40), QCOW2),
    (header("L1 crooked", 40, ">Q", 12345), QCOW2),
    (header("refcounts outside", 48, ">Q", 1 << 40), QCOW2),
    (header("refcount clusters", 56, ">I", 0xFFFFFFFF), QCOW2),
    (header("snapshots", 60, ">I", 100000), QCOW2),
    (header("corrupt", 72, ">Q", 2), QCOW2),
    (header("unknown feature", 72, ">Q", 1 << 40), QCOW2),
    (header("header length", 100, ">I", 0xFFFFFFF8), QCOW2),
]


@pytest.mark.parametrize(("make", "declared"), HOSTILE)
def test_hostile_image_is_refused(
    tmp_path: Path, make: Callable[[Path], Path], declared: ImageFormat
) -> None:
    with pytest.raises(UnsafeImage):
        inspect(make(tmp_path), declared)


def test_good_images_pass(tmp_path: Path) -> None:
    for options in ((), ("-o", "compat=0.10"), ("-o", "compression_type=zstd,extended_l2=on")):
        seen = inspect(qcow2(tmp_path / "good", *options), QCOW2)
        assert (seen.format, seen.virtual_size_bytes) == (QCOW2, SIZE)
    raw = tmp_path / "raw"
    raw.write_bytes(b"\x00" * 510 + b"\x55\xaa" + bytes(SIZE - 512))
    assert inspect(raw, RAW).virtual_size_bytes == SIZE


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        inspect(tmp_path / "none", RAW)

"""Root disks that are full copies: whole, sparse, and in need of no other file."""

from __future__ import annotations

import json
import os
import re
import subprocess
import uuid
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from blocks import changes
from blocks.errors import Conflict, HostFault
from blocks.images import ImageStore, encryption
from blocks.images.files import part_of, size_on_disk
from blocks.images.progress import told_to
from blocks.resources import DiskMode, ImageFormat
from tasks.cache_cleaning import needed_bases
from tests.unit.cli_store import Filled
from tests.unit.hostile_images import PASSPHRASE, QUICK_KEY, internal_luks
from tests.waiting import eventually

MIB = 1 << 20
SIZE = 64 * MIB
FORMATS = tuple(ImageFormat)


@pytest.fixture(autouse=True)
def _quick_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encryption, "LUKS", f"{encryption.LUKS},{QUICK_KEY}")


def nowhere(_percent: float) -> None:
    """Nobody wants to know."""


def run(*words: str | Path) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def info(disk: Path) -> dict[str, Any]:
    words = ("qemu-img", "info", "--output=json", "-f", "qcow2", disk)
    return dict(json.loads(run(*words)))


def base_of(folder: Path, form: ImageFormat) -> Path:
    """A base of 64 MiB with 3 MiB of data in it; a qcow2 is compressed, as ours are."""
    raw = folder / "base.raw"
    with raw.open("wb") as file:
        for place in (0, 10, 40):
            file.seek(place * MIB)
            file.write(os.urandom(MIB))
        file.truncate(SIZE)
    if form is ImageFormat.RAW:
        return raw
    base = folder / "base.qcow2"
    zstd = ("-c", "-o", "compression_type=zstd")
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", *zstd, raw, base)
    return base


@pytest.mark.parametrize("form", FORMATS)
def test_a_copy_is_whole_sparse_and_alone(tmp_path: Path, form: ImageFormat) -> None:
    base, disk = base_of(tmp_path, form), tmp_path / "disk.qcow2"
    store = ImageStore(tmp_path / "images")
    # What a killed try has left is nobody's.
    part_of(disk).write_bytes(b"half a disk")
    with changes.collecting() as made:
        store.create_disk(base, form, disk, nowhere)
    assert [change.what for change in made] == [f"Copied the base into the disk {disk}"]
    seen = info(disk)
    assert "backing-filename" not in seen
    assert seen["virtual-size"] == SIZE
    assert size_on_disk(disk) < 5 * MIB
    assert disk.stat().st_mode & 0o777 == 0o600
    assert "identical" in run("qemu-img", "compare", "-f", form, "-F", "qcow2", base, disk)

    before = disk.stat()
    with changes.collecting() as again:
        store.create_disk(base, form, disk, nowhere)
    assert (again, disk.stat()) == ([], before)
    store.resize_disk(disk, 2 * SIZE)
    base.unlink()
    run("qemu-img", "check", "-q", "-f", "qcow2", disk)
    assert info(disk)["virtual-size"] == 2 * SIZE
    store.remove_disk(disk)
    store.remove_disk(disk)
    assert not {"disk.qcow2", "disk.qcow2.part"} & {path.name for path in tmp_path.iterdir()}


def test_a_disk_of_the_other_kind_is_not_taken_for_it(tmp_path: Path) -> None:
    base, disk = base_of(tmp_path, ImageFormat.QCOW2), tmp_path / "disk.qcow2"
    store = ImageStore(tmp_path / "images")
    store.create_disk(base, ImageFormat.QCOW2, disk)
    with pytest.raises(Conflict, match=r"another one: on .*base\.qcow2"):
        store.create_disk(base, ImageFormat.QCOW2, disk, nowhere)
    store.remove_disk(disk)
    store.create_disk(base, ImageFormat.QCOW2, disk, nowhere)
    with pytest.raises(Conflict, match="another one: on no base"):
        store.create_disk(base, ImageFormat.QCOW2, disk)
    with pytest.raises(Conflict):
        store.create_encrypted_disk(base, disk, PASSPHRASE, SIZE, nowhere)


def test_of_a_copy_that_fails_nothing_is_left(tmp_path: Path) -> None:
    base, disk = base_of(tmp_path, ImageFormat.QCOW2), tmp_path / "disk.qcow2"
    with base.open("r+b") as file:
        file.seek(128 * 1024)
        file.write(os.urandom(256 * 1024))
    with pytest.raises(HostFault):
        ImageStore(tmp_path / "images").create_disk(base, ImageFormat.QCOW2, disk, nowhere)
    assert not disk.exists()
    assert not part_of(disk).exists()


def test_a_copy_of_an_encrypted_base_is_encrypted_and_alone(tmp_path: Path) -> None:
    base, disk, key = internal_luks(tmp_path), tmp_path / "disk.qcow2", tmp_path / "key"
    key.write_text(PASSPHRASE)
    store = ImageStore(tmp_path / "images")
    size = info(base)["virtual-size"]
    qemu_io(base, key, f"write -P 7 0 {size}")
    for _ in range(2):  # once more is the same
        store.create_encrypted_disk(base, disk, PASSPHRASE, 2 * size, nowhere)
    store.resize_disk(disk, 2 * size)  # nothing to do: it needs no key for that
    base.unlink()
    seen = info(disk)
    assert (seen["encrypted"], seen["virtual-size"]) == (True, 2 * size)
    assert "backing-filename" not in seen
    qemu_io(disk, key, f"read -P 7 0 {size}", f"read -P 0 {size} {size}")
    assert bytes([7]) * 512 not in disk.read_bytes()


def qemu_io(disk: Path, key: Path, *commands: str) -> None:
    options = f"driver=qcow2,encrypt.key-secret=s,file.filename={disk}"
    words = ["qemu-io", "--object", f"secret,id=s,file={key}", "--image-opts"]
    told = run(*words, *(word for one in commands for word in ("-c", one)), options)
    assert "Pattern verification failed" not in told, told
    assert len(re.findall("^(?:read|wrote) ", told, re.MULTILINE)) == len(commands), told


def test_how_far_it_is_is_told_while_it_goes_on(tmp_path: Path) -> None:
    told: list[float] = []
    with (
        told_to(told.append, every_s=0.01) as said,
        said.open("wb", buffering=0) as file,
    ):
        for words, expected in (
            (b"    (0.00/100%)\r", [0.0]),
            (b"    (12.50/100%)\r", [0.0, 12.5]),
            (b"    (12.50/100%)\r    (99", [0.0, 12.5]),
            (b".99/100%)\r", [0.0, 12.5, 99.99]),
        ):
            file.write(words)
            eventually(partial(told.__eq__, expected), "all that was said")
    # And as QEMU says it.
    base = base_of(tmp_path, ImageFormat.RAW)
    convert = ("qemu-img", "convert", "-p", "-f", "raw", "-O", "qcow2", base, tmp_path / "copy")
    told.clear()
    with told_to(told.append, every_s=0.01) as said:
        with said.open("wb") as file:
            subprocess.run(convert, stdout=file, check=True)
        eventually(lambda: told[-1:] == [100.0], "end of the copy")


@pytest.mark.parametrize(
    ("mode", "state", "needs"),
    [
        (DiskMode.CHAINED, "complete", True),
        (DiskMode.FLAT, "complete", False),
        (DiskMode.FLAT, "building", True),
        (DiskMode.FLAT, "failed", True),
    ],
)
def test_a_base_is_needed_by_overlays_and_by_copies_until_they_are_made(
    tmp_path: Path, mode: DiskMode, state: str, needs: bool
) -> None:
    filled = Filled(tmp_path)
    instance = filled.add_vm(f"vm-{uuid.uuid4().hex[:8]}")
    flavor = instance.flavor.model_copy(update={"disk_mode": mode})
    filled.store.instances.record(instance.model_copy(update={"flavor": flavor}))
    filled.store.builds.update(instance.id, state=state)
    assert (filled.image.sha256 in needed_bases(filled.store).used) is needs

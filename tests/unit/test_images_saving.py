"""An image as a file: in both formats, sparse, whole or not at all, over nothing else."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from blocks import changes
from blocks.errors import Conflict, FiftyError, InvalidRequest, UnsafeImage, Unsupported
from blocks.images.files import size_on_disk
from blocks.images.saving import save
from blocks.resources import Image, ImageFormat
from tests.unit.hostile_images import PASSPHRASE, internal_luks
from tests.unit.test_flat_disks import FORMATS, MIB, SIZE, base_of, info, nowhere, qemu_io, run

RAW, QCOW2 = ImageFormat.RAW, ImageFormat.QCOW2


def image_of(path: Path, form: ImageFormat, **fields: Any) -> Image:  # noqa: ANN401 - as the fields are
    known = {"id": "i", "tenant_id": None, "name": "some", "virtual_size_bytes": SIZE}
    content = path.read_bytes()
    return Image(
        **known,
        path=str(path),
        format=form,
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        **fields,
    )


@pytest.fixture(name="home")
def _home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    return home


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kept", FORMATS)
def test_both_ways_and_as_it_is(home: Path, kept: ImageFormat, form: ImageFormat) -> None:
    image = image_of(base_of(home, kept), kept)
    target = home.parent / "saved"
    with changes.collecting() as made:
        save(image, target, form, home, nowhere)
    assert [change.what for change in made] == [f"Saved the image some as {form}"]
    assert "identical" in run("qemu-img", "compare", "-f", kept, "-F", form, image.path, target)
    assert size_on_disk(target) < 5 * MIB
    if kept is form:
        assert target.read_bytes() == Path(image.path).read_bytes()
    elif form is RAW:
        assert target.stat().st_size == SIZE
    else:
        run("qemu-img", "check", "-q", "-f", "qcow2", target)
        told = info(target)["format-specific"]["data"]
        assert told["compression-type"] == "zstd"
    assert target.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in home.parent.iterdir()) == ["home", "saved"]


def test_how_far_it_is_is_told(home: Path) -> None:
    told: list[float] = []
    save(image_of(base_of(home, RAW), RAW), home.parent / "saved", RAW, home, told.append)
    assert told[0] == 0
    assert told[-1] == 100
    assert told == sorted(set(told))


def test_an_encrypted_one_stays_so(home: Path) -> None:
    path, key, target = internal_luks(home), home / "key", home.parent / "saved"
    key.write_text(PASSPHRASE)
    size = info(path)["virtual-size"]
    qemu_io(path, key, f"write -P 7 0 {size}")
    image = image_of(path, QCOW2, encrypted=True).model_copy(update={"virtual_size_bytes": size})
    with pytest.raises(Unsupported, match="is encrypted"):
        save(image, target, RAW, home, nowhere)
    save(image, target, QCOW2, home, nowhere)
    assert info(target)["encrypted"]
    qemu_io(target, key, f"read -P 7 0 {size}")


def test_nothing_is_saved_over_something_or_into_our_home(home: Path) -> None:
    image = image_of(base_of(home, RAW), RAW)
    folder = home.parent
    (folder / "there").write_text("mine")
    (folder / "dangling").symlink_to(folder / "elsewhere")
    (folder / "inside").symlink_to(home)
    os.mkfifo(folder / ".pipe.fifty-part")
    (folder / ".link.fifty-part").symlink_to(folder / "there")
    before = {path: path.lstat() for path in folder.iterdir()}
    refused: dict[str, type[FiftyError]] = {
        str(folder / "there"): Conflict,
        str(folder / "dangling"): Conflict,
        str(folder / "home"): Conflict,
        str(home / "saved"): InvalidRequest,
        str(folder / "inside" / "saved"): InvalidRequest,
        str(folder / "x" / "saved"): InvalidRequest,
        str(folder / "there" / "saved"): InvalidRequest,
        str(folder / "pipe"): InvalidRequest,
        str(folder / "link"): InvalidRequest,
        "saved": InvalidRequest,
        "/": InvalidRequest,
    }
    for name, kind in refused.items():
        with pytest.raises(kind):
            save(image, Path(name), QCOW2, home, nowhere)
    after = {path: path.lstat() for path in folder.iterdir()}
    assert {p: (s.st_ino, s.st_size, s.st_mtime_ns) for p, s in after.items()} == {
        p: (s.st_ino, s.st_size, s.st_mtime_ns) for p, s in before.items()
    }


@pytest.mark.parametrize("form", FORMATS)
def test_of_what_was_altered_nothing_is_saved(home: Path, form: ImageFormat) -> None:
    image = image_of(base_of(home, RAW), RAW)
    with Path(image.path).open("r+b") as file:
        file.write(b"altered")
    with pytest.raises(UnsafeImage, match="another checksum"):
        save(image, home.parent / "saved", form, home, nowhere)
    assert [path.name for path in home.parent.iterdir()] == ["home"]


def test_what_a_killed_one_left_is_taken_over(home: Path) -> None:
    image = image_of(base_of(home, QCOW2), QCOW2)
    target, part = home.parent / "saved", home.parent / ".saved.fifty-part"
    part.write_bytes(os.urandom(2 * SIZE))
    with part.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Conflict, match="another save"):
            save(image, target, RAW, home, nowhere)
        assert part.stat().st_size == 2 * SIZE
    save(image, target, RAW, home, nowhere)
    assert target.stat().st_size == SIZE
    assert not part.exists()


def test_a_raw_that_would_be_taken_for_something_else_is_not_saved(home: Path) -> None:
    """A guest may write a qcow2's header that names a file of the host (CVE-2024-32498)."""
    raw, path = home / "raw", home / "disk.qcow2"
    run(
        "qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", "/etc/passwd", "-F", "raw", raw, "1M"
    )
    os.truncate(raw, MIB)
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path)
    image = image_of(path, QCOW2).model_copy(update={"virtual_size_bytes": MIB})
    with pytest.raises(UnsafeImage, match="said to be raw"):
        save(image, home.parent / "saved", RAW, home, nowhere)
    assert [one.name for one in home.parent.iterdir()] == ["home"]


def test_it_says_what_it_did(home: Path) -> None:
    image = image_of(base_of(home, QCOW2), QCOW2)
    words = save(image, home.parent / "saved", RAW, home, nowhere)
    again = home.parent / "again"
    subprocess.run([*words[:-1], again], check=True)
    assert again.read_bytes() == (home.parent / "saved").read_bytes()
    assert json.loads(run("qemu-img", "info", "--output=json", "-f", "raw", again))

"""The cache of bases: one copies, checksum and content are looked at, kills do no harm."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from blocks import changes
from blocks.errors import NotFound, UnsafeImage
from blocks.images import ImageStore
from blocks.images.leftovers import PART
from blocks.resources.image import Image, ImageFormat

pytestmark = pytest.mark.host

MIB = 1024 * 1024

#: Fetches, and says how many bytes it copied itself.
FETCH = """
import os, sys, time
from pathlib import Path
from blocks.images import ImageStore
from blocks.resources.image import Image
directory, image, hold = Path(sys.argv[1]), Image.model_validate_json(sys.argv[2]), sys.argv[3]
steps = []
def progress(done, total):
    if not steps:
        print("copying", flush=True)
        if hold == "hold":
            sys.stdin.readline()
    steps.append(done)
path = ImageStore(directory).fetch_base(image, progress)
print(path, len(steps), flush=True)
"""


def image_of(path: Path, image_format: ImageFormat = ImageFormat.RAW) -> Image:
    content = path.read_bytes()
    return Image(
        id="11111111-2222-4333-8444-555555555555",
        tenant_id=None,
        name="test",
        format=image_format,
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        virtual_size_bytes=len(content),
        path=str(path),
    )


@pytest.fixture
def image(tmp_path: Path) -> Image:
    path = tmp_path / "source"
    path.write_bytes(os.urandom(5 * MIB) + bytes(20 * MIB) + os.urandom(3 * MIB))
    return image_of(path)


def fetcher(directory: Path, image: Image, hold: str = "") -> subprocess.Popen[str]:
    words = [sys.executable, "-c", FETCH, str(directory), image.model_dump_json(), hold]
    pipe = subprocess.PIPE
    return subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True)


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def nothing(_done: int, _total: int) -> None:
    """Progress that nobody looks at."""


def test_base_is_whole_sparse_and_readable_by_all(tmp_path: Path, image: Image) -> None:
    seen: list[tuple[int, int]] = []
    with changes.collecting() as recorded:
        base = ImageStore(tmp_path / "images").fetch_base(image, lambda *step: seen.append(step))
        again = ImageStore(tmp_path / "images").fetch_base(image, nothing)
    assert base == again == tmp_path / "images" / "cache" / f"{image.sha256}.raw"
    assert len(recorded) == 1
    assert hashlib.sha256(base.read_bytes()).hexdigest() == image.sha256
    status = base.stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (0, 0o644)
    assert stat.S_IMODE(base.parent.stat().st_mode) == 0o755
    assert status.st_blocks * 512 < 20 * MIB
    assert (seen[0], seen[-1]) == ((0, 28 * MIB), (28 * MIB, 28 * MIB))
    assert [path.name for path in base.parent.iterdir()] == [base.name]


def test_of_two_processes_one_copies(tmp_path: Path, image: Image) -> None:
    first = fetcher(tmp_path / "images", image, "hold")
    assert line(first) == "copying"
    second = fetcher(tmp_path / "images", image)
    lock = tmp_path / "images" / "cache" / f"{image.sha256}.lock"
    while str(lock.stat().st_ino) not in waiting_inodes():
        assert second.poll() is None
    out, _ = first.communicate("go on\n", timeout=60)
    path = tmp_path / "images" / "cache" / f"{image.sha256}.raw"
    assert out.split()[0] == str(path)
    waited, _ = second.communicate(timeout=60)
    assert waited.split() == [str(path), "0"]


def waiting_inodes() -> set[str]:
    """Inodes of locks that some process waits for (proc(5): lines with `->`)."""
    lines = Path("/proc/locks").read_text().splitlines()
    waiting = [one.split() for one in lines if "->" in one]
    return {word.split(":")[2] for words in waiting for word in words if word.count(":") == 2}


def test_killed_in_mid_copy_then_again(tmp_path: Path, image: Image) -> None:
    store = ImageStore(tmp_path / "images")
    process = fetcher(tmp_path / "images", image, "hold")
    assert line(process) == "copying"
    process.kill()
    process.wait()
    assert [(found.kind, found.owner) for found in store.inventory()] == [(PART, image.sha256)]
    base = store.fetch_base(image, nothing)
    assert hashlib.sha256(base.read_bytes()).hexdigest() == image.sha256
    assert store.inventory() == []


def test_a_cut_off_base_is_fetched_again(tmp_path: Path, image: Image) -> None:
    store = ImageStore(tmp_path / "images")
    base = store.fetch_base(image, nothing)
    os.truncate(base, 1000)
    assert store.fetch_base(image, nothing) == base
    assert hashlib.sha256(base.read_bytes()).hexdigest() == image.sha256


def test_wrong_checksum_is_refused_and_nothing_is_left(tmp_path: Path, image: Image) -> None:
    store = ImageStore(tmp_path / "images")
    with Path(image.path).open("r+b") as file:
        file.write(b"changed")
    with pytest.raises(UnsafeImage):
        store.fetch_base(image, nothing)
    assert list((tmp_path / "images" / "cache").iterdir()) == []


def test_a_hostile_image_is_refused_though_its_checksum_is_right(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret" * 1000)
    path = tmp_path / "source"
    words = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(tmp_path / "secret"), "-F", "raw"]
    subprocess.run([*words, str(path), "1M"], check=True)
    for image_format in ImageFormat:
        with pytest.raises(UnsafeImage):
            ImageStore(tmp_path / "images").fetch_base(image_of(path, image_format), nothing)
    assert list((tmp_path / "images" / "cache").iterdir()) == []


def test_a_missing_file_is_not_found(tmp_path: Path, image: Image) -> None:
    Path(image.path).unlink()
    with pytest.raises(NotFound):
        ImageStore(tmp_path / "images").fetch_base(image, nothing)


def test_remove_base_twice(tmp_path: Path, image: Image) -> None:
    store = ImageStore(tmp_path / "images")
    base = store.fetch_base(image, nothing)
    store.remove_base(image)
    store.remove_base(image)
    assert not base.exists()

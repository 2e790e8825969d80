"""Taking images in: files, URLs, archives, formats; and what is refused leaves nothing."""

from __future__ import annotations

import gzip
import hashlib
import ipaddress
import lzma
import os
import subprocess
import tracemalloc
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from blocks.errors import FiftyError, InvalidRequest, NotFound, UnsafeImage
from blocks.images.intake import converting
from blocks.images.intake.checksums import checksum_of
from blocks.images.intake.download import Downloader
from blocks.images.intake.importing import Intake
from blocks.images.intake.outcome import ImportedImage
from blocks.images.intake.reach import Reach
from blocks.resources.image import ImageFormat, SourceFormat
from tests.unit.hostile_images import (
    CANARY,
    HOSTILE,
    SIZE,
    SOUND,
    Hostile,
    Make,
    image,
    internal_luks,
)
from tests.web_server import Served, WebServer, web_server

MIB = 1 << 20
LIMIT = 2 * SIZE
ID = str(uuid.uuid4())


def gz(data: bytes) -> bytes:
    return gzip.compress(data)


def zst(data: bytes) -> bytes:
    words = ["zstd", "-c", "-q"]
    return subprocess.run(words, input=data, capture_output=True, check=True).stdout


Pack = Callable[[bytes], bytes]
PACKERS: list[tuple[str, Pack]] = [("gz", gz), ("xz", lzma.compress), ("zst", zst)]


def nothing(*_at: int | None) -> None:
    """Progress that nobody looks at."""


class Lab:
    """An intake with directories of its own.

    Args:
        directory: Where they are.
        limit: The largest file.
    """

    def __init__(self, directory: Path, limit: int = LIMIT) -> None:
        self.store, self.scratch = directory / "store", directory / "build"
        home = directory / "home"
        home.mkdir(exist_ok=True)
        reach = Reach((ipaddress.ip_network("127.0.0.0/8"),))
        self.intake = Intake(self.store, self.scratch, limit, home, Downloader(reach))
        self.home = home

    def take(
        self,
        source: str | Path,
        declared: SourceFormat | None = None,
        target: ImageFormat = ImageFormat.QCOW2,
        *,
        expected: str | None = None,
        encrypted: bool = False,
    ) -> ImportedImage:
        self.intake.fetch(str(source), ID, expected, nothing)
        seen = self.intake.inspect(ID, declared, nothing, encrypted=encrypted)
        return self.intake.convert(ID, seen, target, nothing, compressed=True)


@pytest.fixture(name="lab")
def _lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


@pytest.fixture(name="server")
def _server() -> Iterator[WebServer]:
    with web_server() as server:
        yield server


def content_of(path: Path, form: str) -> str:
    """The digest of what a guest sees."""
    raw = path.with_name(f"{path.name}.seen")
    subprocess.run(["qemu-img", "convert", "-f", form, "-O", "raw", path, raw], check=True)
    with raw.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    raw.unlink()
    return digest


def require_stored(lab: Lab, imported: ImportedImage, expected: str) -> None:
    """The store holds that one image, whole; and the guest sees what it saw before."""
    assert content_of(imported.path, imported.format) == expected
    assert imported.sha256 == hashlib.sha256(imported.path.read_bytes()).hexdigest()
    assert imported.size_bytes == imported.path.stat().st_size
    assert sorted(one.name for one in lab.store.iterdir()) == sorted(
        [f"{ID}.{imported.format}", f"{ID}.json"]
    )
    assert list(lab.scratch.iterdir()) == []
    words = ["qemu-img", "info", "-f", imported.format, str(imported.path)]
    said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    assert "backing file" not in said


@pytest.mark.parametrize(("name", "form", "make"), SOUND, ids=[one[0] for one in SOUND])
def test_every_format(lab: Lab, tmp_path: Path, name: str, form: SourceFormat, make: Make) -> None:
    del name
    source = make(tmp_path)
    expected = content_of(source, form)
    imported = lab.take(source)
    assert imported.format is ImageFormat.QCOW2
    assert imported.virtual_size_bytes == SIZE
    require_stored(lab, imported, expected)


@pytest.mark.parametrize(("suffix", "pack"), PACKERS, ids=[one[0] for one in PACKERS])
@pytest.mark.parametrize("form", ["raw", "vmdk"])
def test_every_archive(lab: Lab, tmp_path: Path, suffix: str, pack: Pack, form: str) -> None:
    source = image(form)(tmp_path)
    expected = content_of(source, form)
    packed = tmp_path / f"packed.{suffix}"
    packed.write_bytes(pack(source.read_bytes()))
    imported = lab.take(packed, SourceFormat(form))
    require_stored(lab, imported, expected)


def test_archives_in_parts(lab: Lab, tmp_path: Path) -> None:
    """Files put one behind the other are one, as for gunzip and unxz."""
    data = image("raw")(tmp_path).read_bytes()
    for pack in (gz, lzma.compress, zst):
        source = tmp_path / "source"
        source.write_bytes(pack(data[:MIB]) + pack(data[MIB:]))
        imported = lab.take(source, target=ImageFormat.RAW)
        assert imported.sha256 == hashlib.sha256(data).hexdigest()
        for path in lab.store.iterdir():
            path.unlink()


def test_holes_stay_holes(lab: Lab, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"boot".ljust(MIB, b"\1"))
    os.truncate(source, SIZE)
    for path in (source, tmp_path / "packed"):
        (tmp_path / "packed").write_bytes(gz(source.read_bytes()))
        imported = lab.take(path, target=ImageFormat.RAW)
        status = imported.path.stat()
        assert status.st_size == SIZE
        assert status.st_blocks * 512 < 3 * MIB
        for stored in lab.store.iterdir():
            stored.unlink()


def test_what_is_encrypted_stays_so(lab: Lab, tmp_path: Path) -> None:
    source = internal_luks(tmp_path)
    with pytest.raises(UnsafeImage):
        lab.take(source)
    imported = lab.take(source, encrypted=True)
    assert imported.encrypted
    assert imported.path.read_bytes() == source.read_bytes()


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda one: one.name)
def test_a_hostile_image_gets_nowhere(lab: Lab, tmp_path: Path, hostile: Hostile) -> None:
    """Whatever it is said to be, also nothing: the canary is not in the store."""
    path = hostile.make(tmp_path)
    for said in (hostile.declared, None):
        try:
            imported = lab.take(path, said)
        except FiftyError:
            assert not lab.store.exists() or list(lab.store.iterdir()) == []
            continue
        # By its magic bytes it may be sound (a VMDK that was said to be raw); and a link is
        # followed once, before anything is looked at.
        assert said is None or hostile.name == "a link"
        raw = tmp_path / "seen"
        words = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(imported.path), str(raw)]
        subprocess.run(words, check=True)
        assert CANARY not in raw.read_bytes()


@pytest.mark.parametrize(("suffix", "pack"), PACKERS, ids=[one[0] for one in PACKERS])
def test_damaged_archives(lab: Lab, tmp_path: Path, suffix: str, pack: Pack) -> None:
    good = pack(os.urandom(MIB))
    path = tmp_path / f"packed.{suffix}"
    middle = len(good) // 2
    for bad in (
        good[:-1],
        good[:middle],
        good[:20],
        good + b"more",
        good[:middle] + b"\0\1\2\3" + good[middle + 4 :],
        pack(good),
    ):
        path.write_bytes(bad)
        with pytest.raises(UnsafeImage):
            lab.take(path)
        assert not lab.store.exists()


@pytest.mark.parametrize(
    ("packer", "name"), [("gzip", "gz"), ("xz", "xz"), ("zstd", "zst")], ids=["gz", "xz", "zst"]
)
def test_a_bomb(lab: Lab, tmp_path: Path, packer: str, name: str) -> None:
    """A gibibyte of zeros: it ends at the limit, in little space and memory."""
    bomb = tmp_path / f"bomb.{name}"
    with bomb.open("wb") as file:
        zeros = subprocess.Popen(["head", "-c", "1G", "/dev/zero"], stdout=subprocess.PIPE)
        subprocess.run([packer, "-c", "-1"], stdin=zeros.stdout, stdout=file, check=True)
        zeros.wait()
    assert bomb.stat().st_size < 6 * MIB
    tracemalloc.start()
    try:
        with pytest.raises(UnsafeImage, match="more than"):
            lab.take(bomb)
        assert tracemalloc.get_traced_memory()[1] < 40 * MIB
    finally:
        tracemalloc.stop()
    taken = sum(one.stat().st_blocks * 512 for one in (lab.scratch / ID).iterdir())
    assert taken < 8 * MIB


def test_a_qcow2_that_unfolds(tmp_path: Path) -> None:
    """Little is stored, much comes out of it: the copy ends at the limit."""
    plain, source = tmp_path / "plain", tmp_path / "source"
    plain.write_bytes(b"\1" * (96 * MIB))
    options = ["-f", "raw", "-O", "qcow2", "-c"]
    subprocess.run(["qemu-img", "convert", *options, plain, source], check=True)
    assert source.stat().st_size < MIB
    lab = Lab(tmp_path, limit=32 * MIB)
    lab.intake.fetch(str(source), ID, None, nothing)
    seen = lab.intake.inspect(ID, None, nothing)
    with pytest.raises(UnsafeImage, match="cannot be converted"):
        lab.intake.convert(ID, seen, ImageFormat.QCOW2, nothing, compressed=False)
    assert (lab.scratch / ID / "made.qcow2").stat().st_size < 64 * MIB
    with pytest.raises(UnsafeImage, match="as raw"):
        lab.intake.convert(ID, seen, ImageFormat.RAW, nothing, compressed=False)
    assert list(lab.store.iterdir()) == []


def test_checksums(lab: Lab, tmp_path: Path, server: WebServer) -> None:
    source = image("qcow2")(tmp_path).rename(tmp_path / "my image.qcow2")
    data = source.read_bytes()
    right = hashlib.sha256(data).hexdigest()
    assert lab.intake.fetch(str(source), ID, right, nothing) == right
    with pytest.raises(UnsafeImage, match="checksum"):
        lab.intake.fetch(str(source), ID, "0" * 64, nothing)
    assert not (lab.scratch / ID / "source").exists()
    with pytest.raises(NotFound, match="there is no"):
        lab.intake.fetch(str(source), ID, "SHA256SUMS", nothing)
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  other\n{right} *my image.qcow2\n")
    assert lab.intake.fetch(str(source), ID, "SHA256SUMS", nothing) == right

    server.files["/a/my%20image.qcow2?x=1"] = Served(data)
    url = server.url("/a/my%20image.qcow2?x=1")
    with pytest.raises(NotFound):
        lab.intake.fetch(url, ID, "SHA256SUMS", nothing)
    server.files["/a/SHA256SUMS"] = Served(f"{'1' * 64}  my image.qcow2\n".encode())
    with pytest.raises(UnsafeImage, match="checksum"):
        lab.intake.fetch(url, ID, "SHA256SUMS", nothing)
    server.files["/a/SHA256SUMS"] = Served(f"SHA256 (my image.qcow2) = {right}\n".encode())
    assert lab.intake.fetch(url, ID, "SHA256SUMS", nothing) == right
    server.files["/a/SHA256SUMS"] = Served(b"#" * 3 * MIB)
    with pytest.raises(UnsafeImage, match="too large"):
        lab.intake.fetch(url, ID, "SHA256SUMS", nothing)


def test_sums_that_contradict_themselves() -> None:
    one, two = "1" * 64, "2" * 64
    assert checksum_of("a", f"{one}  a\n{one}  ./a\n") == one
    assert checksum_of("a", f"{one}  a\n{two}  a\n") is None
    assert checksum_of("a", f"{one}  b/a\nnonsense\n") is None
    assert checksum_of("a", f"{one[:-1]}g  a\n") is None


def test_files_that_are_not_imported(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        lab.take(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(UnsafeImage, match="not a regular file"):
            lab.take(path)
    (lab.home / "state.db").write_bytes(bytes(1024))
    (tmp_path / "way").symlink_to(lab.home / "state.db")
    for path in (lab.home / "state.db", tmp_path / "way", lab.home / ".." / "home" / "state.db"):
        with pytest.raises(InvalidRequest, match="Fifty Steps itself"):
            lab.take(path)
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", LIMIT + 512)
    with pytest.raises(UnsafeImage, match="allowed"):
        lab.take(tmp_path / "large")


def test_a_url(lab: Lab, tmp_path: Path, server: WebServer) -> None:
    source = image("qcow2")(tmp_path)
    server.files["/i.qcow2"] = Served(source.read_bytes(), breaks_at=MIB)
    imported = lab.take(server.url("/i.qcow2"))
    require_stored(lab, imported, content_of(source, "qcow2"))


def test_each_part_again_is_the_same(lab: Lab, tmp_path: Path) -> None:
    source = image("vdi")(tmp_path)
    expected = content_of(source, "vdi")
    for _ in range(2):
        lab.intake.fetch(str(source), ID, None, nothing)
    for _ in range(2):
        seen = lab.intake.inspect(ID, None, nothing)
    first = lab.intake.convert(ID, seen, ImageFormat.QCOW2, nothing, compressed=False)
    assert lab.intake.convert(ID, seen, ImageFormat.QCOW2, nothing, compressed=False) == first
    require_stored(lab, first, expected)


def rewrite(path: Path) -> None:
    path.write_bytes(path.read_bytes())


def put_another_there(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.replace(path)


def grow(path: Path) -> None:
    os.truncate(path, path.stat().st_size + 512)


def put_a_link_there(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to(path.with_name("moved"))


@pytest.mark.parametrize("target", list(ImageFormat))
@pytest.mark.parametrize("change", [rewrite, put_another_there, grow, put_a_link_there])
def test_a_file_that_changes_while_it_is_imported(
    lab: Lab,
    tmp_path: Path,
    target: ImageFormat,
    change: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is read where it lies, and what was inspected is what becomes of it; or nothing."""
    source = image("raw")(tmp_path)
    lab.intake.fetch(str(source), ID, None, nothing)
    taken = sum(one.stat().st_blocks * 512 for one in (lab.scratch / ID).iterdir())
    assert taken < 64 * 1024
    change(source)
    with pytest.raises(UnsafeImage):
        lab.intake.inspect(ID, None, nothing)
    if change is put_a_link_there:
        return
    lab.intake.fetch(str(source), ID, None, nothing)
    seen = lab.intake.inspect(ID, None, nothing)

    def meanwhile(*words: Any, **more: Any) -> None:  # noqa: ANN401 - of any function
        change(source)
        converting.make(*words, **more)

    with monkeypatch.context() as patch:
        patch.setattr("blocks.images.intake.importing.make", meanwhile)
        with pytest.raises(UnsafeImage, match=r"changed|allowed"):
            lab.intake.convert(ID, seen, target, nothing, compressed=True)
    with pytest.raises(UnsafeImage, match="changed"):
        lab.intake.convert(ID, seen, target, nothing, compressed=True)
    assert list(lab.store.iterdir()) == []


def test_a_kernel_that_keeps_nobody_from_files(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There the file is copied first, and what becomes of it is nobody's concern."""
    monkeypatch.setattr("blocks.images.intake.importing.keeps_to_files", lambda: False)
    source = image("vdi")(tmp_path)
    expected = content_of(source, "vdi")
    with pytest.raises(UnsafeImage, match="checksum"):
        lab.intake.fetch(str(source), ID, "0" * 64, nothing)
    lab.intake.fetch(str(source), ID, hashlib.sha256(source.read_bytes()).hexdigest(), nothing)
    source.unlink()
    seen = lab.intake.inspect(ID, None, nothing)
    imported = lab.intake.convert(ID, seen, ImageFormat.QCOW2, nothing, compressed=True)
    require_stored(lab, imported, expected)


@pytest.mark.parametrize("target", list(ImageFormat))
def test_killed_before_it_is_in_the_store(
    lab: Lab, tmp_path: Path, target: ImageFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it was made from is there until then, and so it is made again."""
    source = image("raw")(tmp_path)
    expected = content_of(source, "raw")
    lab.intake.fetch(str(source), ID, None, nothing)
    seen = lab.intake.inspect(ID, None, nothing)

    class KilledError(BaseException):
        pass

    def kill(*_words: object, **_more: object) -> None:
        raise KilledError

    for place in ("inspect", "sha256_of", "replacing", "ImportedImage", "shutil.rmtree"):
        with monkeypatch.context() as patch:
            patch.setattr(f"blocks.images.intake.importing.{place}", kill)
            with pytest.raises(KilledError):
                lab.intake.convert(ID, seen, target, nothing, compressed=True)
    imported = lab.intake.convert(ID, seen, target, nothing, compressed=True)
    require_stored(lab, imported, expected)
    assert imported.path.stat().st_nlink == 1
    assert not (lab.scratch / ID).exists()

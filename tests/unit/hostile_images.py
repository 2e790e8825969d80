"""Images that nobody should trust, made one by one: each in an empty directory, as `image`."""

from __future__ import annotations

import gzip
import lzma
import os
import struct
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from blocks.resources.image import SourceFormat

RAW, QCOW2 = SourceFormat.RAW, SourceFormat.QCOW2
VMDK, VDI, VHDX = SourceFormat.VMDK, SourceFormat.VDI, SourceFormat.VHDX
SIZE = 64 * 1024 * 1024
#: What must never be read on behalf of an image.
CANARY = b"canary-5d1f0e7a"
PASSPHRASE = "a passphrase"

Make = Callable[[Path], Path]


@dataclass(frozen=True)
class Hostile:
    """One of them, and what it is said to be."""

    name: str
    declared: SourceFormat
    make: Make


def qemu_img(*words: str | Path) -> None:
    subprocess.run(["qemu-img", *words], check=True, capture_output=True)


def image(form: str, *options: str) -> Make:
    """A sound image of a format, with some data."""

    def make(directory: Path) -> Path:
        path = directory / "image"
        qemu_img("create", "-q", "-f", form, *options, path, str(SIZE))
        words = ["qemu-io", "-f", form, "-c", "write -P 7 3M 2M", str(path)]
        subprocess.run(words, check=True, capture_output=True)
        return path

    return make


def stream_optimized(directory: Path) -> Path:
    """A sound compressed VMDK, with a footer."""
    options = ("-O", "vmdk", "-o", "subformat=streamOptimized")
    source = image("vmdk")(directory).rename(directory / "source")
    qemu_img("convert", "-f", "vmdk", *options, source, directory / "image")
    source.unlink()
    return directory / "image"


def with_footer(directory: Path) -> Path:
    """The same as VMware writes it: the header leaves it to a footer where the directory is."""
    path = stream_optimized(directory)
    with path.open("r+b") as file:
        header = file.read(512)
        file.seek(56)
        file.write(b"\xff" * 8)
        file.seek(0, os.SEEK_END)
        file.write(struct.pack("<QII", 1, 0, 3).ljust(512, b"\0") + header + bytes(512))
    return path


def patched(make: Make, offset: int, form: str, *values: int | bytes) -> Make:
    """An image with other bytes at one place; an offset below zero is counted from the end."""

    def patch(directory: Path) -> Path:
        path = make(directory)
        with path.open("r+b") as file:
            file.seek(offset, os.SEEK_END if offset < 0 else os.SEEK_SET)
            file.write(struct.pack(form, *values))
        return path

    return patch


def replaced(make: Make, old: bytes, new: bytes) -> Make:
    """An image with other bytes in place of some that are in its first megabyte."""

    def replace(directory: Path) -> Path:
        path = make(directory)
        with path.open("r+b") as file:
            start = file.read(1 << 20)
            assert old in start
            file.seek(start.index(old))
            file.write(new.ljust(len(old), b"\n") if len(new) < len(old) else new)
        return path

    return replace


def cut(make: Make, length: int) -> Make:
    def cut_off(directory: Path) -> Path:
        path = make(directory)
        os.truncate(path, length)
        return path

    return cut_off


def content(data: bytes, length: int | None = None) -> Make:
    def make(directory: Path) -> Path:
        path = directory / "image"
        path.write_bytes(data)
        if length is not None:
            os.truncate(path, length)
        return path

    return make


def secret(directory: Path) -> Path:
    path = directory / "secret"
    path.write_bytes(CANARY * 1000)
    return path


def backing(directory: Path) -> Path:
    path = directory / "image"
    qemu_img("create", "-q", "-f", "qcow2", "-b", secret(directory), "-F", "raw", path, "1M")
    return path


def backing_json(directory: Path) -> Path:
    path = directory / "image"
    name = 'json:{"driver":"raw","file":{"driver":"file","filename":"/etc/shadow"}}'
    qemu_img("create", "-q", "-u", "-f", "qcow2", "-b", name, "-F", "raw", path, "1M")
    return path


def backing_url(directory: Path) -> Path:
    path = directory / "image"
    name = "nbd://127.0.0.1:10809/secret"
    qemu_img("create", "-q", "-u", "-f", "qcow2", "-b", name, "-F", "raw", path, "1M")
    return path


def data_file(directory: Path) -> Path:
    path = directory / "image"
    options = f"data_file={secret(directory)},data_file_raw=on"
    qemu_img("create", "-q", "-f", "qcow2", "-o", options, path, str(SIZE))
    return path


#: Milliseconds that the derivation of a key is to take: else it is two seconds at each opening.
QUICK_KEY = "encrypt.iter-time=10"


@cache
def _luks_in_qcow2() -> bytes:
    """Made once: QEMU measures for seconds how much a passphrase's derivation may cost."""
    words = ("--object", f"secret,id=s,data={PASSPHRASE}", "-f", "qcow2", "-o")
    with TemporaryDirectory() as directory:
        path = Path(directory) / "image"
        options = f"encrypt.format=luks,encrypt.key-secret=s,{QUICK_KEY}"
        for _ in range(20):
            # It fails at once where its measure of the processor comes out as nothing.
            with suppress(subprocess.CalledProcessError):
                qemu_img("create", "-q", *words, options, path, "1M")
                return path.read_bytes()
        raise AssertionError("qemu-img makes no LUKS image")


def internal_luks(directory: Path) -> Path:
    return content(_luks_in_qcow2())(directory)


def vmdk_with_extent(kind: str) -> Make:
    """A VMDK in two files: QEMU would read the other one."""

    def make(directory: Path) -> Path:
        path = directory / "image"
        other = secret(directory)
        text = f'# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="{kind}"\n'
        path.write_text(f'{text}RW 8 FLAT "{other}" 0\n')
        os.truncate(path, 20 * 512)
        return path

    return make


def vmdk_descriptor_in_disguise(directory: Path) -> Path:
    path = directory / "image"
    text = f'\n# hello\n\nversion=1\nRW 8 FLAT "{secret(directory)}" 0\n'
    path.write_bytes(text.encode().ljust(512 * 20, b"\n"))
    return path


def vmdk_without_capacity(directory: Path) -> Path:
    """The header has no capacity, so QEMU would go by the descriptor's extents."""
    path = patched(image("vmdk"), 12, "<Q", 0)(directory)
    text = (
        b'# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="monolithicFlat"'
    )
    text += f'\nRW 8 FLAT "{secret(directory)}" 0\n'.encode()
    with path.open("r+b") as file:
        file.seek(512)
        file.write(text.ljust(20 * 512, b"\0"))
    return path


def vmdk_with_parent(directory: Path) -> Path:
    base = image("vmdk")(directory).rename(directory / "secret")
    qemu_img("create", "-q", "-f", "vmdk", "-b", base, "-F", "vmdk", directory / "image")
    return directory / "image"


def vmdk_with_hidden_parent(directory: Path) -> Path:
    """The parent is named behind the descriptor's end, where QEMU still looks."""
    path = image("vmdk")(directory)
    with path.open("r+b") as file:
        file.seek(36)
        file.write(struct.pack("<Q", 1))  # the descriptor is said to be one sector
        file.seek(512 + 15 * 512)
        file.write(f'parentFileNameHint="{secret(directory)}"\n'.encode())
    return path


def vhdx_with_parent(directory: Path) -> Path:
    """The flags of the file parameters say so; they follow the block size of 8 MiB."""
    path = image("vhdx")(directory)
    raw = path.read_bytes()
    at = raw.index(struct.pack("<II", 8 << 20, 0), 2 << 20)
    with path.open("r+b") as file:
        file.seek(at + 4)
        file.write(struct.pack("<I", 2))
    return path


def vhdx_item(guid: bytes, new: bytes) -> Make:
    """An item of the metadata's table becomes another one."""

    def make(directory: Path) -> Path:
        path = image("vhdx")(directory)
        raw = path.read_bytes()
        at = raw.index(guid, raw.index(b"metadata"))
        with path.open("r+b") as file:
            file.seek(at)
            file.write(new)
        return path

    return make


def vhdx_block(value: int) -> Make:
    """The first block of data is somewhere else, or in another state."""

    def make(directory: Path) -> Path:
        path = image("vhdx")(directory)
        raw = path.read_bytes()
        region = raw.index(bytes.fromhex("6677c22d23f600429d64115e9bfd4a08"), 192 << 10)
        (table,) = struct.unpack_from("<Q", raw, region + 16)
        with path.open("r+b") as file:
            file.seek(table)
            file.write(struct.pack("<Q", value))
        return path

    return make


def link(directory: Path) -> Path:
    image("qcow2")(directory).rename(directory / "other")
    (directory / "image").symlink_to("other")
    return directory / "image"


def fifo(directory: Path) -> Path:
    os.mkfifo(directory / "image")
    return directory / "image"


def directory_itself(directory: Path) -> Path:
    (directory / "image").mkdir()
    return directory / "image"


def _qcow2(name: str, offset: int, form: str, *values: int | bytes) -> Hostile:
    return Hostile(f"qcow2 {name}", QCOW2, patched(image("qcow2"), offset, form, *values))


def _vmdk(name: str, offset: int, form: str, *values: int | bytes) -> Hostile:
    return Hostile(f"vmdk {name}", VMDK, patched(image("vmdk"), offset, form, *values))


def _vdi(name: str, offset: int, form: str, *values: int | bytes) -> Hostile:
    return Hostile(f"vdi {name}", VDI, patched(image("vdi"), offset, form, *values))


def _vhdx(name: str, make: Make) -> Hostile:
    return Hostile(f"vhdx {name}", VHDX, make)


_PARAMETERS = bytes.fromhex("3767a1ca36fa434db3b633f0aa44e76b")
_PAGE_83 = bytes.fromhex("ab12cabee6b2234593efc309e000c746")
_PARENT_LOCATOR = bytes.fromhex("2d5fd3a80bb34d45abf7d3d84834ab0c")

_OTHERWISE = [
    Hostile("a link", QCOW2, link),
    Hostile("a pipe", RAW, fifo),
    Hostile("a directory", RAW, directory_itself),
    Hostile("an empty raw", RAW, content(b"")),
    Hostile("an empty qcow2", QCOW2, content(b"")),
    Hostile("a raw of an odd length", RAW, content(bytes(1000))),
    Hostile("luks as raw", RAW, content(b"LUKS\xba\xbe\0\1".ljust(1 << 20, b"\0"))),
    Hostile("a dmg as raw", RAW, content(bytes(512) + b"koly".ljust(512, b"\0"))),
    Hostile("a tar as raw", RAW, content(bytes(257) + b"ustar".ljust(767, b"\0"))),
    Hostile("a zip as raw", RAW, content(b"PK\x03\x04".ljust(1024, b"\0"))),
    Hostile("a gzip as raw", RAW, content(gzip.compress(os.urandom(9000))[:1024])),
    Hostile("an xz as raw", RAW, content(lzma.compress(os.urandom(9000))[:1024])),
    Hostile("a zstd as raw", RAW, content(b"\x28\xb5\x2f\xfd".ljust(1024, b"\0"))),
    Hostile("a vmdk of ESX", RAW, content(b"COWD".ljust(1024, b"\0"))),
    *(
        Hostile(f"{form} as raw", RAW, image(form))
        for form in ("qcow2", "vmdk", "vdi", "vhdx", "qed", "parallels")
    ),
    Hostile("vpc as raw", RAW, image("vpc")),
    Hostile("vpc, fixed, as raw", RAW, image("vpc", "-o", "subformat=fixed")),
    *(Hostile(f"{form} as qcow2", QCOW2, image(form)) for form in ("vmdk", "raw")),
    *(Hostile(f"qcow2 as {form}", form, image("qcow2")) for form in (VMDK, VDI, VHDX)),
]

_OF_QCOW2 = [
    Hostile("qcow2 with a backing file", QCOW2, backing),
    Hostile("qcow2 with a backing json:", QCOW2, backing_json),
    Hostile("qcow2 with a backing URL", QCOW2, backing_url),
    Hostile("qcow2 with a data file", QCOW2, data_file),
    Hostile("qcow2 with a data file, bit hidden", QCOW2, patched(data_file, 72, ">Q", 0)),
    Hostile("qcow2 encrypted inside", QCOW2, internal_luks),
    Hostile("qcow2 encrypted, bit hidden", QCOW2, patched(internal_luks, 32, ">I", 0)),
    Hostile("qcow2 cut off in its header", QCOW2, cut(image("qcow2"), 90)),
    Hostile("qcow2 cut off in its tables", QCOW2, cut(image("qcow2"), 70_000)),
    _qcow2("of version 4", 4, ">I", 4),
    _qcow2("of version 1", 4, ">I", 1),
    _qcow2("with a backing name of no file", 8, ">QI", 0x1000, 5),
    _qcow2("with clusters of 2^40", 20, ">I", 40),
    _qcow2("with clusters of 2^8", 20, ">I", 8),
    _qcow2("of an exabyte", 24, ">Q", 1 << 60),
    _qcow2("of nothing", 24, ">Q", 0),
    _qcow2("of half a sector", 24, ">Q", 1000),
    _qcow2("said to be AES", 32, ">I", 1),
    _qcow2("said to be LUKS", 32, ">I", 2),
    _qcow2("with too many L1 entries", 36, ">I", 0x7FFFFFFF),
    _qcow2("with an L1 table outside", 40, ">Q", 1 << 40),
    _qcow2("with an L1 table that is crooked", 40, ">Q", 12345),
    _qcow2("with refcounts outside", 48, ">Q", 1 << 40),
    _qcow2("with too many refcount clusters", 56, ">I", 0xFFFFFFFF),
    _qcow2("with too many snapshots", 60, ">I", 100_000),
    _qcow2("with snapshots outside", 60, ">IQ", 1, 1 << 50),
    _qcow2("marked corrupt", 72, ">Q", 2),
    _qcow2("with an unknown feature", 72, ">Q", 1 << 40),
    _qcow2("with an endless header", 100, ">I", 0xFFFFFFF8),
    _qcow2("with a header of odd length", 100, ">I", 107),
    _qcow2("with an endless extension", 112, ">II", 0x12345678, 0xFFFFFFF0),
    _qcow2("with a data file's name", 112, ">II8sII", 0x44415441, 8, b"/etc/hos", 0, 0),
]

_OF_VMDK = [
    Hostile("vmdk descriptor as raw", RAW, vmdk_with_extent("monolithicFlat")),
    Hostile("vmdk descriptor in disguise", RAW, vmdk_descriptor_in_disguise),
    Hostile("vmdk descriptor", VMDK, vmdk_with_extent("monolithicFlat")),
    Hostile("vmdk descriptor of vmfs", VMDK, vmdk_with_extent("vmfs")),
    Hostile("vmdk without a capacity", VMDK, vmdk_without_capacity),
    Hostile("vmdk with a parent", VMDK, vmdk_with_parent),
    Hostile("vmdk with a hidden parent", VMDK, vmdk_with_hidden_parent),
    Hostile("vmdk in two files", VMDK, replaced(image("vmdk"), b" SPARSE ", b" FLAT   ")),
    Hostile("vmdk of vmfs", VMDK, replaced(image("vmdk"), b'"monolithicSparse"', b'"vmfs"')),
    Hostile(
        "vmdk with a parent's id", VMDK, replaced(image("vmdk"), b"CID=ffffffff", b"CID=00000001")
    ),
    Hostile("vmdk with another extent", VMDK, replaced(image("vmdk"), b"RW 131072", b"RW 131071")),
    Hostile("vmdk cut off", VMDK, cut(image("vmdk"), 40)),
    Hostile("vmdk cut off in its descriptor", VMDK, cut(image("vmdk"), 700)),
    Hostile("vmdk with another footer", VMDK, patched(with_footer, -1024 + 12, "<Q", 1)),
    Hostile("vmdk with no footer", VMDK, patched(with_footer, -1024, "<I", 0)),
    _vmdk("of version 9", 4, "<I", 9),
    _vmdk("of an exabyte", 12, "<Q", 1 << 51),
    _vmdk("with grains of a gigabyte", 20, "<Q", 1 << 21),
    _vmdk("with grains of nothing", 20, "<Q", 0),
    _vmdk("without a descriptor", 28, "<QQ", 0, 0),
    _vmdk("with a descriptor outside", 28, "<Q", 1 << 50),
    _vmdk("with an endless descriptor", 36, "<Q", 1 << 40),
    _vmdk("with vast grain tables", 44, "<I", 1 << 30),
    _vmdk("with no grain tables", 44, "<I", 0),
    _vmdk("with its directory outside", 56, "<Q", 1 << 50),
    _vmdk("with an unknown compression", 77, "<H", 7),
]

_OF_VDI = [
    Hostile("vdi cut off", VDI, cut(image("vdi"), 300)),
    Hostile("vdi cut off in its map", VDI, cut(image("vdi"), 520)),
    Hostile("vdi cut off in its data", VDI, cut(image("vdi"), 1 << 20)),
    _vdi("of version 2", 68, "<I", 0x20001),
    _vdi("that is a difference", 76, "<I", 4),
    _vdi("with its map in the header", 340, "<I", 0),
    _vdi("with its map outside", 340, "<I", 0xFFFFFE00),
    _vdi("with data in its map", 344, "<I", 512),
    _vdi("with sectors of 4096", 360, "<I", 4096),
    _vdi("of an exabyte", 368, "<Q", 1 << 60),
    _vdi("of nothing", 368, "<Q", 0),
    _vdi("with blocks of 4 GiB", 376, "<I", 0xFFFFFFFF),
    _vdi("with blocks of nothing", 376, "<I", 0),
    _vdi("with too many blocks", 384, "<I", 0xFFFFFFFF),
    _vdi("with more blocks than blocks", 388, "<I", 65),
    _vdi("with a link", 424, "<I", 1),
    _vdi("with a parent", 440, "<I", 1),
    _vdi("with a block that is nowhere", 512, "<I", 1000),
]

_OF_VHDX = [
    _vhdx("cut off", cut(image("vhdx"), 100_000)),
    _vhdx("cut off in its regions", cut(image("vhdx"), 2 << 20)),
    _vhdx("with a parent", vhdx_with_parent),
    _vhdx("with a parent's locator", vhdx_item(_PAGE_83, _PARENT_LOCATOR)),
    _vhdx("without file parameters", vhdx_item(_PARAMETERS, bytes(16))),
    _vhdx("with unknown metadata", vhdx_item(_PARAMETERS, b"\1" * 16)),
    _vhdx(
        "with headers of a wrong sum",
        patched(patched(image("vhdx"), 65540, "<I", 0), 131076, "<I", 0),
    ),
    _vhdx("with regions of a wrong sum", patched(image("vhdx"), (192 << 10) + 4, "<I", 0)),
    _vhdx("with other regions in the copy", patched(image("vhdx"), (256 << 10) + 40, "<I", 1)),
    _vhdx("with a block outside", vhdx_block((1 << 40) | 6)),
    _vhdx("with a block that is partly a parent's", vhdx_block((3 << 20) | 7)),
]

HOSTILE = [*_OTHERWISE, *_OF_QCOW2, *_OF_VMDK, *_OF_VDI, *_OF_VHDX]

#: Sound images, for what must not be refused, and for what is made worse at random.
SOUND: list[tuple[str, SourceFormat, Make]] = [
    ("qcow2", QCOW2, image("qcow2")),
    ("qcow2 of version 2", QCOW2, image("qcow2", "-o", "compat=0.10")),
    ("qcow2, zstd", QCOW2, image("qcow2", "-o", "compression_type=zstd,extended_l2=on")),
    ("raw", RAW, content(bytes(510) + b"\x55\xaa", SIZE)),
    ("vmdk", VMDK, image("vmdk")),
    ("vmdk, compressed", VMDK, stream_optimized),
    ("vmdk, with a footer", VMDK, with_footer),
    ("vmdk of version 6", VMDK, image("vmdk", "-o", "compat6=on")),
    ("vdi", VDI, image("vdi")),
    ("vdi, fixed", VDI, image("vdi", "-o", "static=on")),
    ("vhdx", VHDX, image("vhdx")),
    ("vhdx, fixed", VHDX, image("vhdx", "-o", "subformat=fixed")),
    ("vhdx, small blocks", VHDX, image("vhdx", "-o", "block_size=1M")),
]

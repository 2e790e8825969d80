"""A disk laid out as Windows': NTFS by ntfs-3g's own programs, hives by the test."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from blocks.errors import UnsafeImage, Unsupported
from blocks.images import ImageStore, qemu_img
from blocks.images.check.report import Verdict
from blocks.images.exports import Exports
from blocks.resources import Image, ImageFormat
from blocks.windows.check import WANTED, look_at_windows
from blocks.windows.disk import HIVES, open_windows
from tests.hives import hive
from tests.unit.test_windows_check import CONF, whole

pytestmark = pytest.mark.host

MIB = 1024**2
SIZE = 32 * MIB


def ntfs(folder: Path, files: Mapping[str, bytes]) -> bytes:
    """An NTFS volume with these files, made by mkntfs and ntfs-3g."""
    volume, mount = folder / "volume", folder / "mount"
    volume.unlink(missing_ok=True)
    with volume.open("wb") as file:
        file.truncate(SIZE)
    subprocess.run(["mkntfs", "-F", "-Q", "-q", volume], check=True, capture_output=True)
    mount.mkdir(exist_ok=True)
    subprocess.run(["ntfs-3g", volume, mount], check=True)
    try:
        for name, content in files.items():
            (mount / name).parent.mkdir(parents=True, exist_ok=True)
            (mount / name).write_bytes(content)
    finally:
        subprocess.run(["umount", mount], check=True)
    return volume.read_bytes()


def disk(folder: Path, *volumes: bytes) -> Path:
    """A disk with an MBR, and these volumes on its partitions."""
    path = folder / "disk.raw"
    with path.open("wb") as file:
        file.truncate(MIB + SIZE * len(volumes) + MIB)
        for number, content in enumerate(volumes):
            file.seek(MIB + SIZE * number)
            file.write(content)
    lines = [
        f"start={(MIB + SIZE * number) // 512}, size={SIZE // 512}, type=7"
        for number in range(len(volumes))
    ]
    script = "\n".join(["label: dos", *lines, ""])
    subprocess.run(["sfdisk", "-q", path], input=script, text=True, check=True)
    return path


@pytest.fixture
def exports(tmp_path: Path) -> Exports:
    return Exports(tmp_path / "exports")


@pytest.fixture
def files() -> dict[str, bytes]:
    """What lies on Windows' own partition."""
    hives = whole()
    found = {where: hive(hives[name]) for name, where in HIVES.items()}
    return found | {WANTED[0]: CONF.encode()}


@pytest.mark.parametrize("disk_format", list(ImageFormat))
def test_the_hives_are_read_from_the_partitions(
    tmp_path: Path, exports: Exports, files: dict[str, bytes], disk_format: ImageFormat
) -> None:
    boot = {"Boot/BCD": hive(whole()["BCD"])}
    path = disk(tmp_path, ntfs(tmp_path, boot), ntfs(tmp_path, files))
    if disk_format is ImageFormat.QCOW2:
        qemu_img.convert(path, "raw", tmp_path / "disk.qcow2", "qcow2", compressed=True)
        path = tmp_path / "disk.qcow2"
    before = path.read_bytes()
    with open_windows(path, disk_format, exports, WANTED) as found:
        assert found.partition == 2
        findings = look_at_windows(found)
    assert {one.verdict for one in findings} == {Verdict.PASS}
    assert path.read_bytes() == before
    assert exports.all() == [], "no export is left"


def test_a_disk_without_windows_is_told(tmp_path: Path, exports: Exports) -> None:
    path = disk(tmp_path, ntfs(tmp_path, {"data.txt": b"x"}))
    with (
        pytest.raises(Unsupported, match="no Windows was found") as raised,
        open_windows(path, ImageFormat.RAW, exports),
    ):
        pass
    assert raised.value.hint == "it has one partition with NTFS"
    assert exports.all() == []


def test_a_damaged_file_system_and_a_hive_that_is_none(
    tmp_path: Path, exports: Exports, files: dict[str, bytes]
) -> None:
    damaged = bytearray(ntfs(tmp_path, files))
    damaged[4096:] = bytes(len(damaged) - 4096)
    path = disk(tmp_path, bytes(damaged))
    with (
        pytest.raises(UnsafeImage, match="of an NTFS volume cannot be read"),
        open_windows(path, ImageFormat.RAW, exports),
    ):
        pass
    path = disk(tmp_path, ntfs(tmp_path, {**files, WANTED[0]: bytes(2 * MIB)}))
    with (
        pytest.raises(UnsafeImage, match="has 1048576 bytes or more"),
        open_windows(path, ImageFormat.RAW, exports, WANTED),
    ):
        pass
    files[HIVES["SOFTWARE"]] = b"MZ this is no hive"
    path = disk(tmp_path, ntfs(tmp_path, files))
    with (
        pytest.raises(UnsafeImage, match="registry hive is none"),
        open_windows(path, ImageFormat.RAW, exports),
    ):
        pass
    assert exports.all() == []


def test_the_store_checks_an_image_of_windows_by_its_hives(
    tmp_path: Path, files: dict[str, bytes]
) -> None:
    path = disk(tmp_path, ntfs(tmp_path, files))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    image = Image.model_validate(
        {
            **{"id": "i1", "tenant_id": None, "name": "server", "format": "raw", "os": "windows"},
            **{"sha256": digest, "size_bytes": path.stat().st_size, "path": str(path)},
            "virtual_size_bytes": path.stat().st_size,
        }
    )
    report = ImageStore(tmp_path / "images").check(image, trusted=False)
    assert (report.method, report.passed, report.cloud_init) == ("ntfscat", True, None)
    verdicts = {one.point: one.verdict for one in report.findings}
    assert verdicts.pop("serial-console") is Verdict.UNKNOWN, "there is no boot store"
    assert set(verdicts.values()) == {Verdict.PASS}

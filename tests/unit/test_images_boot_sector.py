"""What tells a disk that somebody installed something on from one that is empty."""

from __future__ import annotations

from pathlib import Path

import pytest

from blocks.errors import HostFault
from blocks.images.boot_sector import has_boot_sector
from tests.image_maker import Part, make_disk, run


def qcow2(raw: Path) -> Path:
    made = raw.with_suffix(".qcow2")
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, made)
    return made


@pytest.mark.parametrize("table", ["dos", "gpt"])
def test_a_partitioned_disk_has_one(tmp_path: Path, table: str) -> None:
    disk = qcow2(make_disk(tmp_path / "disk", [Part(type="L", kind="ext4")], table))
    assert has_boot_sector(disk)


@pytest.mark.parametrize("content", [b"", b"\0" * 510 + b"\x55\xab", b"\x55\xaa"])
def test_what_was_not_written_has_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "disk").write_bytes(content.ljust(1024**2, b"\0"))
    assert not has_boot_sector(qcow2(tmp_path / "disk"))


def test_what_is_no_disk_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"\0" * 1024**2)
    with pytest.raises(HostFault):
        has_boot_sector(tmp_path / "disk")

"""The config drive, read back with xorriso and isoinfo."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from blocks import changes
from blocks.errors import InvalidRequest
from blocks.images.config_drive import build_config_drive

FILES = {
    "openstack/latest/meta_data.json": b'{"uuid": "x", "hostname": "gr\\u00fc\xc3\x9fe"}',
    "openstack/latest/network_data.json": b'{"links": []}',
    "openstack/latest/user_data": bytes(range(256)) * 257,
    "openstack/latest/vendor_data.json": b"",
}


def extracted(iso: Path, to: Path) -> dict[str, bytes]:
    """What xorriso finds by Rock Ridge."""
    command = ["xorriso", "-osirrox", "on", "-indev", str(iso), "-extract", "/", str(to)]
    subprocess.run(command, check=True, capture_output=True)
    files = (path for path in to.rglob("*") if path.is_file())
    return {str(path.relative_to(to)): path.read_bytes() for path in files}


def test_another_tool_reads_the_same_files(tmp_path: Path) -> None:
    build_config_drive(tmp_path / "config.iso", FILES)
    assert extracted(tmp_path / "config.iso", tmp_path / "out") == FILES


def test_volume_and_joliet_names(tmp_path: Path) -> None:
    iso = tmp_path / "config.iso"
    build_config_drive(iso, FILES)
    info = subprocess.run(["isoinfo", "-d", "-i", iso], check=True, capture_output=True, text=True)
    assert "Volume id: config-2\n" in info.stdout
    assert "Rock Ridge signatures version" in info.stdout
    listed = subprocess.run(
        ["isoinfo", "-J", "-f", "-i", iso], check=True, capture_output=True, text=True
    )
    assert {f"/{name}" for name in FILES} <= set(listed.stdout.split())


def test_twice_is_once_and_new_content_replaces(tmp_path: Path) -> None:
    iso = tmp_path / "config.iso"
    with changes.collecting() as first:
        build_config_drive(iso, FILES)
    inode = iso.stat().st_ino
    with changes.collecting() as second:
        build_config_drive(iso, FILES)
    assert (len(first), len(second)) == (1, 0)
    assert iso.stat().st_ino == inode
    build_config_drive(iso, FILES | {"openstack/latest/user_data": b"new"})
    assert extracted(iso, tmp_path / "out")["openstack/latest/user_data"] == b"new"
    assert iso.stat().st_mode & 0o777 == 0o400
    assert [path.name for path in tmp_path.glob("config.iso*")] == ["config.iso"]


def test_what_a_killed_process_left_is_replaced(tmp_path: Path) -> None:
    iso = tmp_path / "config.iso"
    (tmp_path / "config.iso.part").write_bytes(b"half")
    iso.write_bytes(b"not an ISO" * 10000)
    build_config_drive(iso, FILES)
    assert extracted(iso, tmp_path / "out") == FILES
    assert not (tmp_path / "config.iso.part").exists()


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "", "a\x00b"])
def test_paths_outside_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidRequest):
        build_config_drive(tmp_path / "config.iso", {name: b""})
    assert list(tmp_path.iterdir()) == []

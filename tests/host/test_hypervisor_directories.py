"""Instance directories: made for QEMU's user, and removed only with our marker."""

from __future__ import annotations

import stat
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks import changes
from blocks.commands import run
from blocks.errors import Conflict, HostFault, InvalidRequest
from blocks.hypervisor import InstanceDirectories, qemu_identity
from blocks.hypervisor.instance_dirs import MARKER
from blocks.inventory import Found

pytestmark = pytest.mark.host


@pytest.fixture(name="directories")
def _directories(session_directory: Path, site: str) -> Iterator[InstanceDirectories]:
    root = session_directory / f"directories-{uuid.uuid4()}" / "instances"
    yield InstanceDirectories(root, site)
    run("rm", "-rf", root.parent)


def test_prepare_and_remove_twice(directories: InstanceDirectories) -> None:
    instance = str(uuid.uuid4())
    path = directories.prepare(instance)
    with changes.collecting() as again:
        assert directories.prepare(instance) == path
    assert again == []
    found = path.stat()
    assert (found.st_uid, found.st_gid) == qemu_identity()
    assert stat.S_IMODE(found.st_mode) == 0o700
    assert stat.S_IMODE(directories.root.stat().st_mode) == 0o711
    user = f"#{found.st_uid}"
    (path / "disk.qcow2").write_text("disk")
    run("setpriv", "--reuid", user.lstrip("#"), "--clear-groups", "ls", path)
    (path / "dir").mkdir()
    (path / "dir" / "deep").write_text("x")
    directories.remove(instance)
    with changes.collecting() as again:
        directories.remove(instance)
    assert again == [] and not path.exists()


def test_what_a_kill_leaves(directories: InstanceDirectories) -> None:
    """Stopped after the mkdir, or within the removal: both go on from there."""
    instance = str(uuid.uuid4())
    path = directories.path(instance)
    directories.root.mkdir(parents=True, mode=0o711)
    directories.root.parent.chmod(0o711)
    path.mkdir()
    (path / f".{MARKER}.part").write_text("{")
    assert directories.prepare(instance) == path
    assert (path / MARKER).exists()
    (path / MARKER).unlink()
    directories.remove(instance)
    assert not path.exists()


def test_what_is_not_ours_stays(directories: InstanceDirectories, tmp_path: Path) -> None:
    instance, other = str(uuid.uuid4()), str(uuid.uuid4())
    path = directories.prepare(instance)
    (path / "disk.qcow2").write_text("disk")
    site = "ffff" if directories.site != "ffff" else "fffe"
    stranger = InstanceDirectories(directories.root, site)
    assert stranger.inventory() == []
    for touch in (stranger.prepare, stranger.remove):
        with pytest.raises(Conflict):
            touch(instance)
    # A copied marker names another instance; a link is not a directory.
    run("cp", "-a", path, directories.root / other)
    link = str(uuid.uuid4())
    (tmp_path / "precious").write_text("x")
    (directories.root / link).symlink_to(tmp_path)
    for name in (other, link):
        with pytest.raises(Conflict):
            directories.remove(name)
    assert (tmp_path / "precious").exists()
    [found] = directories.inventory()
    assert (found.kind, found.owner, found.name) == ("directory", instance, str(path))
    with pytest.raises(Conflict):
        directories.remove(Found(kind="directory", name="/etc", owner=instance))
    directories.remove(found)
    assert not path.exists()


@pytest.mark.parametrize("hostile", ["../x", "", ".", "/etc", "A" * 36, "a/../b"])
def test_an_id_is_a_uuid(directories: InstanceDirectories, hostile: str) -> None:
    for touch in (directories.path, directories.prepare, directories.remove):
        with pytest.raises(InvalidRequest):
            touch(hostile)


def test_a_place_that_qemu_cannot_reach(tmp_path: Path, site: str) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(HostFault, match="cannot pass through") as caught:
        InstanceDirectories(closed / "instances", site).prepare(str(uuid.uuid4()))
    assert "chmod" in caught.value.hint

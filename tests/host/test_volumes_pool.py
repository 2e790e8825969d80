"""Data volumes: made, checked, connected, deleted; what is not ours or not right is refused."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks import changes
from blocks.commands import run
from blocks.errors import Conflict, FiftyError, HostFault, InvalidRequest, UnsafeImage
from blocks.hypervisor import qemu_identity
from blocks.resources import Volume
from blocks.volumes import VolumePool
from tests.host.hypervisor_lab import Lab

pytestmark = pytest.mark.host


def volume(size_gib: int = 1, instance_id: str | None = None) -> Volume:
    return Volume(
        id=str(uuid.uuid4()),
        tenant_id="t1",
        instance_id=instance_id or str(uuid.uuid4()),
        size_gib=size_gib,
        index=0,
        device="vdb",
    )


@pytest.fixture(name="pool")
def _pool(tmp_path: Path, site: str) -> VolumePool:
    return VolumePool(tmp_path / "volumes", site)


def test_create_and_delete_twice(pool: VolumePool) -> None:
    wanted = volume(3)
    with changes.collecting() as first:
        pool.create(wanted)
    with changes.collecting() as second:
        pool.create(wanted)
    assert any(one.command.startswith("qemu-img create") for one in first)
    assert second == []
    path = pool.path_of(wanted)
    info = json.loads(run("qemu-img", "info", "-f", "qcow2", "--output=json", path).stdout)
    assert info["virtual-size"] == 3 << 30 and info["actual-size"] < 1 << 20
    found = path.stat()
    assert (found.st_uid, found.st_gid) == qemu_identity()
    assert found.st_mode & 0o777 == 0o600
    assert [one.owner for one in pool.inventory()] == [wanted.id]
    pool.delete(wanted)
    with changes.collecting() as again:
        pool.delete(wanted)
    assert again == [] and pool.inventory() == []
    assert not path.exists()


def test_what_a_kill_leaves_is_used_or_removed(pool: VolumePool) -> None:
    """A part of a file, a file that root owns: the same create copes, and so does delete."""
    wanted = volume()
    pool.create(wanted)
    path = pool.path_of(wanted)
    part = path.with_name(path.name + ".part")
    path.rename(part)
    part.write_bytes(b"half")
    pool.create(wanted)
    assert path.stat().st_size > 4 and not part.exists()
    run("chown", "0:0", path)
    pool.create(wanted)
    assert (path.stat().st_uid, path.stat().st_gid) == qemu_identity()
    part.write_bytes(b"half")
    assert len(pool.inventory()) == 2
    for found in pool.inventory():
        pool.remove(found)
    assert not path.exists() and not part.exists()


def test_another_size_is_a_conflict(pool: VolumePool) -> None:
    wanted = volume(1)
    pool.create(wanted)
    larger = wanted.model_copy(update={"size_gib": 2})
    for touch in (pool.create, pool.connect):
        with pytest.raises(Conflict, match="not 2 GiB"):
            touch(larger)


@pytest.mark.parametrize("form", ["raw", "backed", "data-file", "symlink", "fifo", "missing"])
def test_what_is_not_a_plain_volume_is_refused(pool: VolumePool, tmp_path: Path, form: str) -> None:
    wanted = volume()
    pool.create(wanted)
    path = pool.path_of(wanted)
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(1 << 16))
    path.unlink()
    errors: tuple[type[FiftyError], ...] = (UnsafeImage,)
    if form == "raw":
        path.write_bytes(b"root:x:0:0\n" * 100)
    elif form == "backed":
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", secret, "-F", "raw", path, "1G")
    elif form == "data-file":
        run(*("qemu-img", "create", "-q", "-f", "qcow2", "-o", f"data_file={secret}"), path, "1G")
    elif form == "symlink":
        path.symlink_to(secret)
    elif form == "fifo":
        run("mkfifo", path)
    else:
        errors = (HostFault,)
    with pytest.raises(errors):
        pool.connect(wanted)
    assert secret.stat().st_uid == 0


def test_connect_and_disconnect_twice(pool: VolumePool) -> None:
    wanted = volume()
    pool.create(wanted)
    with changes.collecting() as first:
        attachment = pool.connect(wanted)
    with changes.collecting() as second:
        assert pool.connect(wanted) == attachment
    assert len(first) == 1 and second == []
    assert attachment.serial == wanted.id[:20] and attachment.device == "vdb"
    other = wanted.model_copy(update={"instance_id": str(uuid.uuid4())})
    with pytest.raises(Conflict, match="is connected to the instance"):
        pool.connect(other)
    pool.disconnect(other)
    with pytest.raises(Conflict):
        pool.connect(other)
    pool.disconnect(wanted)
    pool.disconnect(wanted)
    assert pool.connect(other).instance_id == other.instance_id


def test_a_pool_of_another_site_is_left_alone(pool: VolumePool) -> None:
    wanted = volume()
    pool.create(wanted)
    stranger = VolumePool(pool.directory, "ffff" if pool.site != "ffff" else "fffe")
    assert stranger.inventory() == []
    for touch in (stranger.create, stranger.delete):
        with pytest.raises(Conflict, match="another site"):
            touch(wanted)
    assert pool.path_of(wanted).exists()


def test_an_id_is_a_uuid(pool: VolumePool) -> None:
    hostile = volume().model_copy(update={"id": "../../etc/shadow"})
    for touch in (pool.create, pool.delete, pool.connect):
        with pytest.raises(InvalidRequest):
            touch(hostile)


@pytest.fixture(name="lab")
def _lab(session_directory: Path, libvirtd: str, site: str) -> Iterator[Lab]:
    lab = Lab(session_directory / "volumes", libvirtd, site)
    try:
        yield lab
    finally:
        lab.clean()


def test_a_volume_that_a_guest_has_open(lab: Lab) -> None:
    """Its own guest may be connected again (a resumed build); nobody deletes it meanwhile."""
    lab.make_files()
    lab.host.define(lab.xml())
    lab.host.start_paused(lab.id)
    assert lab.pool.connect(lab.volume).instance_id == lab.id
    with pytest.raises(Conflict, match=r"is open in process .*qemu"):
        lab.pool.delete(lab.volume)
    [found] = [one for one in lab.pool.inventory() if one.name == str(lab.volume.path)]
    with pytest.raises(Conflict):
        lab.pool.remove(found)
    lab.pool.disconnect(lab.volume)
    other = lab.volume.model_copy(update={"instance_id": str(uuid.uuid4())})
    with pytest.raises(Conflict, match="is open in process"):
        lab.pool.connect(other)
    lab.host.destroy(lab.id)
    lab.pool.delete(lab.volume)
    assert not Path(str(lab.volume.path)).exists()

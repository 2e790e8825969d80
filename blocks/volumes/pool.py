"""The volume pool: data volumes made, checked, connected and deleted (steps 39 and 40).

A volume is `ID.qcow2` in the pool's directory, of the user that QEMU runs as. Beside it
`ID.attached.json` says to which instance it is connected. The pool's directory belongs to
one site, as its marker says.
"""

from __future__ import annotations

import json
import os
import stat
import uuid
from pathlib import Path

from pydantic import ValidationError

from blocks import ages, changes
from blocks.commands import Limits, run
from blocks.errors import Conflict, HostFault, InvalidRequest, UnsafeImage
from blocks.hypervisor.identity import qemu_identity
from blocks.inventory import Found
from blocks.resources import Volume
from blocks.resources.base import Resource
from blocks.volumes.holders import Holder, holders_of

_GIB = 1024**3
_MAGIC = b"QFI\xfb"
_MARKER = "fifty-pool.json"
_LIMITS = Limits(memory_bytes=1 << 30, cpu_s=30)
#: The files of a volume: the disk, the attachment, and what an interrupted write leaves.
_DISK, _ATTACHED = ".qcow2", ".attached.json"
_SUFFIXES = (_DISK, _ATTACHED, f"{_DISK}.part", f"{_ATTACHED}.part")


class VolumeAttachment(Resource):
    """A volume connected to this host for an instance (Cinder's attachment).

    Attributes:
        device: The guest's device name.
        serial: What the guest finds in `/sys/block/DEV/serial`: the id's first 20
            characters, as Cinder's volumes have.
    """

    volume_id: str
    instance_id: str
    device: str
    serial: str
    path: str
    format: str = "qcow2"
    size_bytes: int


class VolumePool:
    """The data volumes of a site on this host.

    Args:
        directory: Where the files are.
        site: Whose they are.
    """

    def __init__(self, directory: Path, site: str) -> None:
        self.directory = directory
        self.site = site

    def path_of(self, volume: Volume) -> Path:
        """The volume's file, there or not."""
        return self._file(volume.id, _DISK)

    def create(self, volume: Volume) -> None:
        """Make a volume's file: sparse, of its size; the same already there is fine.

        Raises:
            Conflict: There is one of another size, or the pool is another site's.
            UnsafeImage: There is a file of another form in its place.
        """
        self.prepare()
        path = self.path_of(volume)
        if not path.is_symlink() and not path.exists():
            part = self._file(volume.id, f"{_DISK}.part")
            part.unlink(missing_ok=True)
            command = ("qemu-img", "create", "-q", "-f", "qcow2", "-o", "preallocation=off")
            size = f"{volume.size_gib}G"
            run(*command, part, size, limits=_LIMITS)
            part.chmod(0o600)
            os.chown(part, *qemu_identity(), follow_symlinks=False)
            part.replace(path)
            changes.record(
                f"Created the volume {path}, {volume.size_gib} GiB", [*command, str(path), size]
            )
            return
        self._check(volume, path)

    def delete(self, volume: Volume) -> None:
        """Delete a volume's files; already gone is fine.

        Raises:
            Conflict: A process has it open.
        """
        self._delete(volume.id)

    def connect(self, volume: Volume) -> VolumeAttachment:
        """Check that a volume is what was recorded and nobody else's, and attach it.

        Returns:
            What the hypervisor needs to know; the same again for the same instance.

        Raises:
            HostFault: Its file is not there, or QEMU's user cannot use it.
            Conflict: It is of another size, connected to another instance, or open.
            UnsafeImage: It is not a plain qcow2 file.
        """
        if volume.instance_id is None:
            raise Conflict(f"the volume {volume.id} is for no instance")
        path = self.path_of(volume)
        if volume.path is not None and Path(volume.path) != path:
            raise Conflict(f"the volume {volume.id} is recorded at {volume.path}, not at {path}")
        self._check(volume, path)
        other = [one for one in holders_of(path) if not one.is_guest(volume.instance_id)]
        if other:
            raise _in_use(path, other[0])
        attachment = VolumeAttachment(
            volume_id=volume.id,
            instance_id=volume.instance_id,
            device=volume.device,
            serial=volume.id[:20],
            path=str(path),
            size_bytes=volume.size_gib * _GIB,
        )
        present = self._attachment(volume.id)
        if present is not None and present.instance_id != volume.instance_id:
            raise Conflict(
                f"the volume {volume.id} is connected to the instance {present.instance_id}",
                hint="disconnect it there first",
            )
        if present != attachment:
            self._write(volume.id, attachment)
            changes.record(
                f"Connected the volume {volume.id} as {volume.device}",
                ["qemu-img", "info", "-f", "qcow2", str(path)],
            )
        return attachment

    def disconnect(self, volume: Volume) -> None:
        """Forget that a volume is connected; not connected, or elsewhere, is fine."""
        present = self._attachment(volume.id)
        if present is not None and present.instance_id != volume.instance_id:
            return
        record = self._file(volume.id, _ATTACHED)
        try:
            record.unlink()
        except FileNotFoundError:
            return
        changes.record(f"Disconnected the volume {volume.id}", ["rm", str(record)])

    def inventory(self) -> list[Found]:
        """The files of this pool's volumes, by their names; none if the pool is not ours."""
        if self._site() != self.site:
            return []
        found = []
        for path in sorted(self.directory.iterdir()):
            owner = path.name[:36]
            if _is_uuid(owner) and path.name[36:] in _SUFFIXES:
                age = ages.of_file(path)
                found.append(Found(kind="file", name=str(path), owner=owner, age_s=age))
        return found

    def remove(self, found: Found) -> None:
        """Remove a volume's files that the inventory told of.

        Raises:
            Conflict: It is not of this pool, or a process has it open.
        """
        path = Path(found.name)
        if path.parent != self.directory or path.name[:36] != found.owner:
            raise Conflict(f"{found.name} is not of this volume pool")
        self._delete(found.owner)

    def _delete(self, volume_id: str) -> None:
        path = self._file(volume_id, _DISK)
        if path.parent.is_dir() and self._site() not in (self.site, None):
            raise Conflict(f"the volume pool {self.directory} is another site's")
        holders = holders_of(path)
        if holders:
            raise _in_use(path, holders[0])
        for suffix in (f"{_ATTACHED}.part", _ATTACHED, f"{_DISK}.part", _DISK):
            file = self._file(volume_id, suffix)
            try:
                file.unlink()
            except FileNotFoundError:
                continue
            changes.record(f"Deleted {file}", ["rm", str(file)])

    def _check(self, volume: Volume, path: Path) -> None:
        """Check a volume's file: form, size, owner."""
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            raise HostFault(f"the volume's file {path} is not there") from None
        except OSError as error:
            raise UnsafeImage(f"the volume {path} does not open: {error.strerror}") from error
        with os.fdopen(handle, "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or file.read(4) != _MAGIC:
                raise UnsafeImage(f"the volume {path} is not a qcow2 file")
        # -U: the instance's own guest may run on it already, in a build that is resumed.
        told = run(
            *("qemu-img", "info", "-U", "-f", "qcow2", "--output=json"), path, limits=_LIMITS
        )
        info = json.loads(told.stdout)
        if "backing-filename" in info or "data-file" in info["format-specific"]["data"]:
            raise UnsafeImage(f"the volume {path} reaches into another file")
        if info["virtual-size"] != volume.size_gib * _GIB:
            raise Conflict(
                f"the volume {path} has {info['virtual-size']} bytes, not {volume.size_gib} GiB",
                hint="it is not the one that was recorded; look at it, and move it away",
            )
        uid, gid = qemu_identity()
        if (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) != (uid, gid, 0o600):
            path.chmod(0o600)
            os.chown(path, uid, gid, follow_symlinks=False)
            changes.record(f"Gave {path} to QEMU's user", ["chown", f"{uid}:{gid}", str(path)])

    def prepare(self) -> None:
        """Make the pool's directory, and mark it as this site's; again is fine.

        Raises:
            Conflict: It is another site's.
        """
        for path in reversed([self.directory, *self.directory.parents]):
            if not path.exists():
                path.mkdir(mode=0o711, exist_ok=True)
                path.chmod(0o711)
                changes.record(f"Created the directory {path}", ["mkdir", "-m", "711", str(path)])
        site = self._site()
        if site is None:
            part = self.directory / f".{_MARKER}.part"
            part.write_text(json.dumps({"site": self.site}) + "\n")
            part.replace(self.directory / _MARKER)
        elif site != self.site:
            raise Conflict(
                f"the volume pool {self.directory} is another site's ({site})",
                hint="give each state store a FIFTY_HOME of its own",
            )

    def _site(self) -> str | None:
        """The site that the pool's directory belongs to; None for nobody's."""
        try:
            marker = json.loads((self.directory / _MARKER).read_text())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise HostFault(f"{self.directory / _MARKER} is not JSON: {error}") from error
        return str(marker.get("site"))

    def _attachment(self, volume_id: str) -> VolumeAttachment | None:
        record = self._file(volume_id, _ATTACHED)
        try:
            return VolumeAttachment.model_validate_json(record.read_text())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise HostFault(
                f"{record} is not an attachment: {error.errors()[0]['msg']}",
                hint="remove it, if the volume is connected nowhere",
            ) from error

    def _write(self, volume_id: str, attachment: VolumeAttachment) -> None:
        part = self._file(volume_id, f"{_ATTACHED}.part")
        part.write_text(attachment.model_dump_json() + "\n")
        part.replace(self._file(volume_id, _ATTACHED))

    def _file(self, volume_id: str, suffix: str) -> Path:
        if not _is_uuid(volume_id):
            raise InvalidRequest(f"{volume_id!r} is not a volume's id (a UUID)")
        return self.directory / f"{volume_id}{suffix}"


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _in_use(path: Path, holder: Holder) -> Conflict:
    program = Path(holder.words[0]).name if holder.words else "?"
    return Conflict(
        f"the volume {path} is open in process {holder.pid} ({program})",
        hint="stop what uses it first",
    )

"""Instance directories: where a guest's disk, config drive and console log are (step 25)."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import uuid
from pathlib import Path

from blocks import ages, changes
from blocks.errors import Conflict, HostFault, InvalidRequest
from blocks.hypervisor import guest_processes
from blocks.hypervisor.identity import qemu_identity
from blocks.inventory import Found

DISK = "disk.qcow2"
CONFIG_DRIVE = "config.iso"
CONSOLE_LOG = "console.log"
NVRAM = "nvram.fd"
#: Says whose a directory is; written first, removed last.
MARKER = "fifty-instance.json"
#: The kind of what snapshots put there: layers of the disk, and memory.
LAYER = "disk-layer"
_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_LAYER = re.compile(rf"(?:disk-({_UUID})\.qcow2|memory-({_UUID})\.save)(?:\.part|\.merging)?")


def layer_name(identifier: str) -> str:
    """The file of the layer that was begun for something: a snapshot, a revert."""
    return f"disk-{uuid.UUID(identifier)}.qcow2"


def memory_name(identifier: str) -> str:
    """The file with the memory that a snapshot holds."""
    return f"memory-{uuid.UUID(identifier)}.save"


def owner_of(name: str) -> str | None:
    """The id that a layer, or a file beside one, was made for; None for any other file."""
    found = _LAYER.fullmatch(name)
    return found[1] or found[2] if found else None


class InstanceDirectories:
    """The directories of a site's instances.

    Each is 0700 and belongs to the user that QEMU runs as; what is above it may be passed
    through (0711), but not listed.

    Args:
        root: Where they are.
        site: Whose they are.
    """

    def __init__(self, root: Path, site: str) -> None:
        self.root = root
        self.site = site

    def path(self, instance_id: str) -> Path:
        """An instance's directory, there or not.

        Raises:
            InvalidRequest: The id is not a UUID.
        """
        return self.root / _uuid(instance_id)

    def prepare(self, instance_id: str) -> Path:
        """Make an instance's directory; ours already is fine.

        Returns:
            The directory.

        Raises:
            Conflict: Something else is in its place.
            HostFault: QEMU's user cannot reach it.
        """
        path = self.path(instance_id)
        uid, gid = qemu_identity()
        self._prepare_root(uid, gid)
        try:
            path.mkdir(mode=0o700)
            changes.record(f"Created the directory {path}", ["mkdir", "-m", "700", str(path)])
        except FileExistsError:
            if not self._is_ours(path, instance_id) and not _is_empty(path):
                raise Conflict(
                    f"{path} is there, and is not this instance's directory",
                    hint="look at it, and move it away",
                ) from None
        marker = path / MARKER
        if not marker.exists():
            text = json.dumps({"instance": instance_id, "site": self.site}) + "\n"
            _write(marker, text)
        found = path.lstat()
        if (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) != (uid, gid, 0o700):
            path.chmod(0o700)
            os.chown(path, uid, gid, follow_symlinks=False)
            changes.record(f"Gave {path} to QEMU's user", ["chown", f"{uid}:{gid}", str(path)])
        return path

    def remove(self, found: str | Found) -> None:
        """Remove an instance's directory with all that is in it; already gone is fine.

        Args:
            found: The instance's id, or what the inventory told of; a process is stopped.

        Raises:
            Conflict: It does not carry our marker.
            HostFault: It cannot be removed.
        """
        if isinstance(found, Found) and found.kind == guest_processes.KIND:
            guest_processes.remove(found, self.root)
            return
        instance_id = found if isinstance(found, str) else found.owner
        path = self.path(instance_id)
        if isinstance(found, Found) and (found.kind, found.name) != ("directory", str(path)):
            raise Conflict(f"{found.name} is not an instance's directory")
        if not path.is_symlink() and not path.exists():
            return
        # An empty one: stopped after the mkdir, or before the rmdir.
        if not self._is_ours(path, instance_id) and not _is_empty(path):
            raise Conflict(
                f"{path} does not carry this instance's marker",
                hint=f"look at it, and remove it yourself: rm -r {path}",
            )
        try:
            for entry in path.iterdir():
                if entry.name == MARKER:
                    continue
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink(missing_ok=True)
            (path / MARKER).unlink(missing_ok=True)
            path.rmdir()
        except FileNotFoundError:
            return  # another remove of the same was quicker
        except OSError as error:
            raise HostFault(
                f"{path} cannot be removed: {error.strerror}",
                hint="see what holds it: findmnt, fuser",
            ) from error
        changes.record(f"Removed the directory {path}", ["rm", "-r", str(path)])

    def inventory(self) -> list[Found]:
        """The guests' processes, their directories, and what snapshots have put there."""
        if not self.root.is_dir():
            return []
        ours = [
            path
            for path in sorted(self.root.iterdir())
            if _is_uuid(path.name) and self._is_ours(path, path.name)
        ]
        return [
            *guest_processes.inventory(self.root),
            *(
                Found(kind="directory", name=str(path), owner=path.name, age_s=ages.of_file(path))
                for path in ours
            ),
            *(
                Found(kind=LAYER, name=str(file), owner=owner, age_s=ages.of_file(file))
                for path in ours
                for file in sorted(path.iterdir())
                if (owner := owner_of(file.name))
            ),
        ]

    def parts(self, instance_id: str) -> list[Found]:
        """What of a guest that runs is here: its process, its directory, its two disks."""
        path = self.path(instance_id)
        return [
            Found(kind=guest_processes.KIND, name=guest_processes.NAME, owner=instance_id),
            Found(kind="directory", name=str(path), owner=instance_id),
            *(
                Found(kind="file", name=str(path / name), owner=instance_id)
                for name in (DISK, CONFIG_DRIVE)
            ),
        ]

    def _prepare_root(self, uid: int, gid: int) -> None:
        missing = [path for path in (self.root, *self.root.parents) if not path.exists()]
        for path in reversed(missing):
            path.mkdir(mode=0o711, exist_ok=True)
            path.chmod(0o711)
            changes.record(f"Created the directory {path}", ["mkdir", "-m", "711", str(path)])
        for path in (self.root, *self.root.parents):
            if not _may_pass(path, uid, gid):
                raise HostFault(
                    f"QEMU's user (uid {uid}) cannot pass through {path}",
                    hint=f"chmod o+x {path}, or set FIFTY_HOME to another place",
                )

    def _is_ours(self, path: Path, instance_id: str) -> bool:
        if path.is_symlink() or not path.is_dir():
            return False
        try:
            handle = os.open(path / MARKER, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return False
        with os.fdopen(handle) as file:
            try:
                marker = json.loads(file.read(4096))
            except ValueError:
                return False
        return bool(marker == {"instance": instance_id, "site": self.site})


def _uuid(text: str) -> str:
    if not _is_uuid(text):
        raise InvalidRequest(f"{text!r} is not an instance's id (a UUID)")
    return text


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _is_empty(path: Path) -> bool:
    if path.is_symlink() or not path.is_dir():
        return False
    # A marker cut short by a kill does not make a directory somebody's.
    return all(entry.name == f".{MARKER}.part" for entry in path.iterdir())


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    part.replace(path)


def _may_pass(path: Path, uid: int, gid: int) -> bool:
    found = path.stat()
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid == uid:
        return bool(mode & 0o100)
    if found.st_gid == gid:
        return bool(mode & 0o010)
    return bool(mode & 0o001)

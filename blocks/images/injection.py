"""Injection: files put into a disk that is not running, without mounting it.

debugfs(8) works on the file system in user space, under limits of memory and time; a path is
resolved inside the file system, so no link in a guest leads out of it. What is written goes
into a copy of the disk (a fresh overlay is tiny), is read back and compared, and only then
takes the disk's place: a killed process leaves the disk as it was.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path, PurePosixPath

from blocks import changes
from blocks.commands import run
from blocks.errors import NotFound
from blocks.images import qemu_img
from blocks.images.access.base import Access, Put
from blocks.images.access.without_kernel import DebugfsAccess
from blocks.images.exports import Exports
from blocks.images.files import replacing
from blocks.resources.image import ImageFormat
from blocks.resources.request import InjectedFile


class Injector:
    """Puts files into disks.

    Args:
        exports: How a qcow2 is seen as a raw file.
    """

    def __init__(self, exports: Exports) -> None:
        self._exports = exports

    def inject(
        self,
        disk: Path,
        files: Sequence[InjectedFile],
        keys: Mapping[str, Sequence[str]],
        *,
        replace_keys: bool = False,
        disk_format: ImageFormat = ImageFormat.QCOW2,
    ) -> None:
        """Put files and login keys into a disk's root file system; root owns the files.

        Missing directories are made. An existing file, or a link in its place, is replaced.

        Args:
            disk: The disk; no guest may be using it.
            files: What to put where.
            keys: OpenSSH public keys by the guest's user; they are added to the user's
                `authorized_keys`.
            replace_keys: The keys replace those that are there.
            disk_format: The disk's format.

        Raises:
            InvalidRequest: A path cannot be written, for example because a directory is there,
                or because the file system is full.
            NotFound: The guest has no such user.
            Conflict: A guest is using the disk.
            Unsupported: The image has no ext file system that we can find.
            GuestFault: The file system was not unmounted.
        """
        qemu_img.require_unused(disk, disk_format)
        with replacing(disk, mode=stat.S_IMODE(disk.stat().st_mode)) as copy:
            run("cp", "--sparse=always", "--reflink=auto", disk, copy, timeout_s=1800)
            with (
                self._exports.open(copy, disk_format) as raw,
                closing(DebugfsAccess(raw, raw.parent, writable=True)) as guest,
            ):
                wanted = [Put(file.path, file.content, file.mode) for file in files]
                wanted += [
                    authorized_keys(guest, user, lines, replace=replace_keys)
                    for user, lines in keys.items()
                ]
                missing = [put for put in wanted if not guest.has(put)]
                guest.apply(missing)
            if not missing:
                copy.unlink()
        for put in missing:
            changes.record(
                f"Wrote {put.path} into the disk ({len(put.content)} bytes)",
                [
                    "debugfs",
                    "-w",
                    "-R",
                    f"write {PurePosixPath(put.path).name} {put.path}",
                    str(disk),
                ],
            )


def authorized_keys(guest: Access, user: str, keys: Sequence[str], *, replace: bool = False) -> Put:
    """A user's authorized_keys as it shall be.

    Args:
        guest: The guest's files.
        user: One of its users.
        keys: OpenSSH public keys.
        replace: They replace those that are there, instead of being added.

    Raises:
        NotFound: The guest has no such user.
    """
    home, uid, gid = _user(guest, user)
    path = str(home / ".ssh" / "authorized_keys")
    lines = [] if replace else (guest.text(path) or "").splitlines()
    lines += [key for key in keys if key not in lines]
    text = "".join(f"{line}\n" for line in lines)
    return Put(path, text.encode(), 0o600, uid, gid, private_folder=True)


def _user(guest: Access, name: str) -> tuple[PurePosixPath, int, int]:
    """Home, user id and group id, from the guest's /etc/passwd."""
    for line in (guest.text("/etc/passwd") or "").splitlines():
        parts = line.split(":")
        if len(parts) == 7 and parts[0] == name and parts[2].isdecimal():
            home = PurePosixPath(parts[5])
            if home.is_absolute() and ".." not in home.parts and parts[3].isdecimal():
                return home, int(parts[2]), int(parts[3])
    raise NotFound(f"the image has no user {name!r}", hint="see the image's login user")

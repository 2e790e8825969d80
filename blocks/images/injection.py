"""Injection: files put into a disk that is not running, without mounting it.

debugfs(8) works on the file system in user space, under limits of memory and time; a path is
resolved inside the file system, so no link in a guest leads out of it. What is written goes
into a copy of the disk (a fresh overlay is tiny), is read back and compared, and only then
takes the disk's place: a killed process leaves the disk as it was.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from blocks import changes
from blocks.commands import Limits, run
from blocks.errors import HostFault, InvalidRequest, NotFound
from blocks.images import qemu_img
from blocks.images.exports import Exports
from blocks.images.files import replacing
from blocks.images.partitions import find_root, require_clean
from blocks.resources.image import ImageFormat
from blocks.resources.request import InjectedFile

_LIMITS = Limits(memory_bytes=1024**3, cpu_s=60)
#: What debugfs says where all is well.
_NOISE = ("debugfs 1", "rm: File not found")
_COMMAND_LINE = re.compile(r"^debugfs: stat .*$", re.MULTILINE)


@dataclass(frozen=True)
class _Placed:
    """A file as it shall be in the guest; `private_folder` makes its directory the owner's own."""

    path: PurePosixPath
    content: bytes
    mode: int
    uid: int = 0
    gid: int = 0
    private_folder: bool = False


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
            with self._exports.open(copy, disk_format) as raw:
                root = find_root(raw)
                require_clean(root)
                guest = _Guest(raw, root.offset)
                wanted = [_placed(file) for file in files]
                wanted += [
                    guest.authorized_keys(user, lines, replace_keys) for user, lines in keys.items()
                ]
                missing = [placed for placed in wanted if not guest.has(placed)]
                guest.write(missing)
            if not missing:
                copy.unlink()
        for placed in missing:
            changes.record(
                f"Wrote {placed.path} into the disk ({len(placed.content)} bytes)",
                ["debugfs", "-w", "-R", f"write {placed.path.name} {placed.path}", str(disk)],
            )


def _placed(file: InjectedFile) -> _Placed:
    return _Placed(PurePosixPath(file.path), file.content, file.mode)


class _Guest:
    """The root file system of a guest, by debugfs."""

    def __init__(self, raw: Path, offset: int) -> None:
        self._folder = raw.parent
        self._image = f"{raw.name}?offset={offset}"

    def has(self, placed: _Placed) -> bool:
        """Whether the file is there with this content, mode and owner."""
        status, content = self._read(placed.path)
        return (
            status is not None
            and content == placed.content
            and stat.S_IMODE(status.st_mode) == placed.mode
            and (status.st_uid, status.st_gid) == (placed.uid, placed.gid)
        )

    def write(self, wanted: Sequence[_Placed]) -> None:
        """Write files, and read them back."""
        if not wanted:
            return
        lines: list[str] = []
        there = self._existing_folders(wanted)
        for number, placed in enumerate(wanted):
            (self._folder / f"in{number}").write_bytes(placed.content)
            lines += _write_commands(placed, f"in{number}", there)
            there |= set(placed.path.parents)
        _out, said = self._debugfs(lines, "-w")
        for placed in wanted:
            if not self.has(placed):
                raise InvalidRequest(
                    f"{placed.path} cannot be written into the disk",
                    hint="is there a directory in its place, or no room left?",
                    details=said,
                )
        self._check()

    def _existing_folders(self, wanted: Sequence[_Placed]) -> set[PurePosixPath]:
        """Which of the directories that the files need are there.

        It has to be known: debugfs's `mkdir` of a directory that is there frees a block that
        is in use (e2fsprogs 1.47.0).
        """
        folders = sorted({folder for placed in wanted for folder in placed.path.parents})
        out, _complaints = self._debugfs(f"stat {_quoted(f'{folder}/.')}" for folder in folders)
        # debugfs repeats each command before its answer.
        answers = _COMMAND_LINE.split(out)[1:]
        if len(answers) != len(folders):
            raise HostFault("debugfs gave an answer that cannot be read")
        return {
            folder
            for folder, answer in zip(folders, answers, strict=True)
            if "Type: directory" in answer
        }

    def _check(self) -> None:
        """The whole file system must be consistent, after what was written."""
        done = run(
            *("e2fsck", "-f", "-n", self._image),
            cwd=self._folder,
            limits=_LIMITS,
            ok_codes=range(256),
            timeout_s=600,
        )
        if done.returncode != 0:
            raise HostFault(
                "the guest's file system is not consistent, so nothing was injected",
                hint="check the image with e2fsck",
                details=done.stdout.splitlines()[:20],
            )

    def authorized_keys(self, user: str, keys: Sequence[str], replace: bool) -> _Placed:
        """The user's authorized_keys as it shall be."""
        home, uid, gid = self._user(user)
        path = home / ".ssh" / "authorized_keys"
        _status, content = self._read(path)
        lines = [] if replace else content.decode("utf-8", "replace").splitlines()
        lines += [key for key in keys if key not in lines]
        text = "".join(f"{line}\n" for line in lines)
        return _Placed(path, text.encode(), 0o600, uid, gid, private_folder=True)

    def _user(self, name: str) -> tuple[PurePosixPath, int, int]:
        """Home, user id and group id, from the guest's /etc/passwd."""
        _status, content = self._read(PurePosixPath("/etc/passwd"))
        for line in content.decode("utf-8", "replace").splitlines():
            parts = line.split(":")
            if len(parts) == 7 and parts[0] == name and parts[2].isdecimal():
                home = PurePosixPath(parts[5])
                if home.is_absolute() and ".." not in home.parts and parts[3].isdecimal():
                    return home, int(parts[2]), int(parts[3])
        raise NotFound(f"the image has no user {name!r}", hint="see the image's login user")

    def _read(self, path: PurePosixPath) -> tuple[os.stat_result | None, bytes]:
        """A file's status and content; (None, empty) where there is none."""
        out = self._folder / "out"
        out.unlink(missing_ok=True)
        self._debugfs([f"dump -p {_quoted(str(path))} out"])
        if not out.is_file():
            return None, b""
        return out.stat(), out.read_bytes()

    def _debugfs(self, lines: Iterable[str], *options: str) -> tuple[str, list[str]]:
        """Run debugfs; what it said, and complained of. It ends with 0 whatever happens."""
        done = run(
            "debugfs",
            *options,
            *("-f", "-", self._image),
            stdin="".join(f"{line}\n" for line in lines),
            cwd=self._folder,
            limits=_LIMITS,
        )
        complaints = [line for line in done.stderr.splitlines() if line]
        if any("while opening filesystem" in line or "Bad magic" in line for line in complaints):
            raise HostFault(f"debugfs cannot open the file system: {complaints[-1]}")
        return done.stdout, [line for line in complaints if not line.startswith(_NOISE)]


def _write_commands(placed: _Placed, source: str, there: set[PurePosixPath]) -> list[str]:
    """Make the directories that are not there, remove the old file, write, set mode and owner.

    Only `cd` and single names: debugfs's `write` takes a path for a name.
    """
    lines = ["cd /"]
    folder = PurePosixPath("/")
    for part in placed.path.parent.parts[1:]:
        folder /= part
        if folder not in there:
            lines.append(f"mkdir {_quoted(part)}")
        # `cd` follows a link (/lib of today's Debian) only where it is not the last name.
        lines.append(f"cd {_quoted(f'./{part}/.')}")
    if placed.private_folder:
        lines += _set_fields(".", 0o040700, placed)
    name = placed.path.name
    lines += [f"rm {_quoted(f'./{name}')}", f"write {source} {_quoted(name)}"]
    return lines + _set_fields(f"./{name}", 0o100000 | placed.mode, placed)


def _set_fields(path: str, mode: int, placed: _Placed) -> list[str]:
    fields = (("mode", f"0{mode:o}"), ("uid", str(placed.uid)), ("gid", str(placed.gid)))
    return [f"set_inode_field {_quoted(path)} {name} {value}" for name, value in fields]


def _quoted(word: str) -> str:
    """A word for a debugfs command: in quotes, with quotes inside doubled.

    Raises:
        InvalidRequest: It holds a control character, which no quoting helps.
    """
    if any(ord(char) < 32 or ord(char) == 127 for char in word):
        raise InvalidRequest(f"the path {word!r} holds a control character")
    return '"{}"'.format(word.replace('"', '""'))

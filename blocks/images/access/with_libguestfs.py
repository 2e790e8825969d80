"""Access by libguestfs: a small guest of its own reads the image's file systems.

Slow to start (some seconds with KVM, about twenty under emulation), and then it knows every
file system that its kernel knows, none of which is this host's: so it is for images that one
does not trust, too. Driven by guestfish(1); a path is resolved inside the guest by the
appliance, and what comes out goes into files that we name.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from blocks.errors import HostFault, InvalidRequest, Unsupported
from blocks.images.access.base import (
    TEXT_LIMIT,
    Access,
    Change,
    Method,
    Node,
    Put,
    Remove,
    missing,
    require_done,
    too_large,
)
from blocks.images.access.dialogue import Dialogue
from blocks.images.access.mount_table import find_root, mount_table
from blocks.images.file_systems import FileSystem
from blocks.images.partitions import DiskMap
from blocks.resources.image import ImageFormat

#: The appliance's start under emulation on a busy machine.
_TIMEOUT_S = 300.0
_FIELD = re.compile(r"^(st_\w+): (-?\d+)$", re.MULTILINE)


class GuestfishAccess(Access):
    """The file systems of a disk, in libguestfs's appliance.

    Args:
        disk: The disk.
        disk_format: Its format.
        disk_map: Its layout.
        scratch: A directory of the caller's.
        writable: Whether changes will be made.
        emulated: Whether the appliance runs without KVM.

    Raises:
        Unsupported: guestfish is not installed.
        HostFault: The appliance does not start, or the root cannot be mounted.
    """

    method = Method.LIBGUESTFS

    def __init__(
        self,
        disk: Path,
        disk_format: ImageFormat,
        disk_map: DiskMap,
        scratch: Path,
        *,
        writable: bool,
        emulated: bool,
    ) -> None:
        if shutil.which("guestfish") is None:
            raise Unsupported("guestfish is not installed", hint="install guestfish")
        words = ["guestfish", "--rw" if writable else "--ro"]
        words += [f"--format={disk_format}", "-a", str(disk)]
        # Its appliance it keeps where it always does: making it takes many seconds.
        env = {**os.environ, "LIBGUESTFS_BACKEND": "direct", "LIBGUESTFS_TMPDIR": str(scratch)}
        if emulated:
            env["LIBGUESTFS_BACKEND_SETTINGS"] = "force_tcg"
        self._scratch = scratch
        self._writable = writable
        self._fish = Dialogue(
            "guestfish", words, scratch, echo="echo ", timeout_s=_TIMEOUT_S, env=env
        )
        self.map = disk_map
        try:
            self._do("run")
            root = find_root(disk_map, self._has_etc)
            self._mount("/", root)
            self.mounts: Mapping[str, FileSystem] = {"/": root}
            mounts = mount_table(self.text("/etc/fstab"), root, disk_map)
            for point, held in mounts.items():
                if point != "/":
                    self._mount(point, held)
            self.mounts = mounts
        except BaseException:
            self._fish.close()
            raise

    def close(self) -> None:
        """Unmount, and end the appliance: then all is written."""
        try:
            self._do("umount-all")
            self._do("shutdown")
        finally:
            self._fish.close()

    def find(self, path: str, *, follow: bool = True) -> Node | None:
        """See `Access`."""
        said = self._ask(f"{'statns' if follow else 'lstatns'} {_quoted(path)}")
        fields = {name: int(value) for name, value in _FIELD.findall(said or "")}
        if "st_mode" not in fields:
            return None
        node = Node(fields["st_mode"], fields["st_uid"], fields["st_gid"], fields["st_size"])
        return Node(node.mode, node.uid, node.gid, 0) if node.is_directory else node

    def link(self, path: str) -> str:
        """See `Access`."""
        said = self._ask(f"readlink {_quoted(path)}")
        if said is None:
            raise missing(path)
        return said.rstrip("\n")

    def entries(self, path: str) -> Mapping[str, Node]:
        """See `Access`."""
        listed = self._scratch / "names"
        if self._ask(f"ls0 {_quoted(path)} {_quoted(str(listed))}") is None:
            return {}
        names = listed.read_bytes().decode("utf-8", "surrogateescape").split("\0")
        found = {
            name: self.find(f"{path.rstrip('/')}/{name}", follow=False) for name in names if name
        }
        return {name: node for name, node in found.items() if node is not None}

    def read(self, path: str, limit: int = TEXT_LIMIT) -> bytes:
        """See `Access`."""
        node = self.find(path)
        if node is None or not node.is_file:
            raise missing(path)
        if node.size > limit:
            raise too_large(path, node.size, limit)
        out = self._scratch / "out"
        self._do(f"download {_quoted(path)} {_quoted(str(out))}")
        return out.read_bytes()

    def apply(self, changes: Sequence[Change]) -> None:
        """See `Access`."""
        for change in changes:
            if self.is_done(change):
                continue
            lines = self._put(change) if isinstance(change, Put) else self._remove(change)
            for line in lines:
                if self._ask(line) is None:
                    raise InvalidRequest(
                        f"{change.path} cannot be written into the disk",
                        hint="is there a directory in its place, or no room left?",
                        details=self._fish.complaints()[-1:],
                    )
        self._do("sync")
        for number, change in enumerate(changes):
            require_done(self, change, changes[number + 1 :])

    def _put(self, change: Put) -> list[str]:
        self.require_no_directory(change)
        into = self._scratch / "in"
        into.write_bytes(change.content)
        path, folder = _quoted(change.path), _quoted(str(PurePosixPath(change.path).parent))
        lines = [f"mkdir-p {folder}"]
        if change.private_folder:
            lines += [f"chown {change.uid} {change.gid} {folder}", f"chmod 0700 {folder}"]
        # A link in the file's place would be followed.
        lines += [f"rm-f {path}", f"upload {_quoted(str(into))} {path}"]
        return [
            *lines,
            f"chown {change.uid} {change.gid} {path}",
            f"chmod 0{change.mode:o} {path}",
        ]

    def _remove(self, change: Remove) -> list[str]:
        path = PurePosixPath(change.path)
        if any(PurePosixPath(point).is_relative_to(path) for point in self.mounts):
            raise InvalidRequest(f"{path} holds a mount point, and cannot be removed")
        return [f"rm-rf {_quoted(change.path)}"]

    def _mount(self, point: str, held: FileSystem) -> None:
        number = next(one.number for one in self.map.partitions if one.holds == held)
        device = f"/dev/sda{number or ''}"
        order = "mount" if self._writable else "mount-ro"
        self._do(f"{order} {device} {_quoted(point)}")

    def _has_etc(self, held: FileSystem) -> bool:
        try:
            self._mount("/", held)
        except HostFault:
            return False
        found = any(self.exists(f"/etc/{name}") for name in ("fstab", "passwd", "os-release"))
        self._do("umount-all")
        return found

    def _do(self, line: str) -> None:
        """Run a command.

        Raises:
            HostFault: It failed.
        """
        if self._ask(line) is None:
            why = (self._fish.complaints() or ["no reason given"])[-1]
            raise HostFault(f"guestfish: {why}")

    def _ask(self, line: str) -> str | None:
        """What guestfish said to a command; None where that failed."""
        before = len(self._fish.complaints())
        # `-`: go on whatever comes of it.
        out = self._fish.ask(f"-{line}").decode("utf-8", "surrogateescape")
        failed = [
            one for one in self._fish.complaints()[before:] if one.startswith("libguestfs: error")
        ]
        return None if failed else out


def kvm_flags() -> bool:
    """Whether the processor can run guests: on some machines /dev/kvm opens, and they hang."""
    return bool({"vmx", "svm"} & set(Path("/proc/cpuinfo").read_text().split()))


def _quoted(word: str) -> str:
    """A word in double quotes, for guestfish.

    Raises:
        InvalidRequest: It holds a control character.
    """
    if any(ord(char) < 32 or ord(char) == 127 for char in word):
        raise InvalidRequest(f"the path {word!r} holds a control character")
    return '"{}"'.format(word.replace("\\", "\\\\").replace('"', '\\"'))

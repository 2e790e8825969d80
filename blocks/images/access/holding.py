"""Our end of the process that holds mounts of a guest's file systems (see `holder`)."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from blocks.errors import HostFault, Unsupported

#: It has the standard library and its neighbours here; what it does not need is not imported.
_PROGRAM = """
import json, sys
sys.path.append(sys.argv[1])
import holder
def serve(spec):
    import nbd_server
    return nbd_server.serve(spec)
holder.main(json.loads(sys.argv[2]), serve)
"""
_NAMESPACES = (
    *("setpriv", "--pdeathsig", "KILL", "--", "unshare", "--fork", "--pid", "--kill-child=KILL"),
    *("--mount", "--mount-proc", "--propagation", "private", "--"),
)
_HINTS = {errno.EBUSY: "`lsblk` shows what uses them; nbdfuse (libnbd-bin) needs none"}
_TIMEOUT_S = 60.0


class Holder:
    """The process that holds the mounts.

    Args:
        folder: A directory of the caller's, for mount points and sockets.
        raw: The file to mount from; by NBD, the process finds one.
        writable: Whether the guest's files may be changed.
        more: More words for the process.

    Attributes:
        root: The guest's root directory, open; -1 where none is.
    """

    def __init__(self, folder: Path, raw: Path, *, writable: bool, **more: str) -> None:
        self._tree = folder / "tree"
        self._tree.mkdir(exist_ok=True)
        spec = {"raw": str(raw), "tree": str(self._tree), "writable": writable, **more}
        words = [*_NAMESPACES, sys.executable, "-I", "-S", "-c", _PROGRAM]
        words += [str(Path(__file__).parent), json.dumps(spec)]
        self.root = -1
        try:
            self._program = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                text=True,
            )  # fmt: skip
        except FileNotFoundError as error:
            raise Unsupported("setpriv is not installed", hint="install util-linux") from error

    def do(self, order: str, **more: str | int) -> Path:
        """Have something done.

        Returns:
            The file to mount from.

        Raises:
            HostFault: It cannot be done.
        """
        assert self._program.stdin is not None  # noqa: S101 - asked for above
        assert self._program.stdout is not None  # noqa: S101
        try:
            self._program.stdin.write(json.dumps({"do": order, **more}) + "\n")
            self._program.stdin.flush()
            line = self._program.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise HostFault(f"{order}: the process that holds the mounts has ended")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            hint = _HINTS.get(answer["errno"], "see `dmesg`")
            raise HostFault(f"{order}: {answer['error']}", hint=hint)
        return Path(answer["raw"])

    def see(self, path: Path) -> Path:
        """How a path of the process's namespace is reached from ours."""
        return Path(f"/proc/{self._program.pid}/root{path}")

    def enter(self) -> None:
        """Open the directory in which the guest's root is mounted, as `root`."""
        self.root = os.open(self.see(self._tree), os.O_PATH | os.O_DIRECTORY)

    def unmount(self) -> None:
        """Unmount all: then all is written to the raw file."""
        self._leave()
        self.do("unmount")

    def _leave(self) -> None:
        """Close the root: what is open keeps its file system, and that one's loop device."""
        if self.root >= 0:
            os.close(self.root)
            self.root = -1

    def end(self) -> None:
        """End it, and all that it holds."""
        self._leave()
        with self._program:
            if self._program.stdin is not None:
                with suppress(BrokenPipeError):
                    self._program.stdin.close()
            try:
                self._program.wait(_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._program.kill()

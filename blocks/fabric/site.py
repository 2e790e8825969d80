"""Where one site's fabric keeps its files, and how two processes keep out of each other's way."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from blocks import marks


@dataclass(frozen=True)
class Site:
    """One state store's share of this host's networking.

    Attributes:
        directory: `FIFTY_HOME/networks`.
        name: The site's id, four hex digits; part of every mark.
        host: This host's name in the scheduler.
    """

    directory: Path
    name: str
    host: str

    def of_network(self, network_id: str) -> Path:
        """The directory of one network: dnsmasq's and the metadata server's files."""
        return self.directory / network_id

    def alias(self, kind: str, identifier: str) -> str:
        """The interface alias of one of this site's links."""
        return marks.link_alias(self.name, kind, identifier)

    @contextmanager
    def locked(self, what: str) -> Iterator[None]:
        """Hold the lock of one thing (a network's id, `firewall`) against all processes.

        The lock is flock(2) on a file, so that it ends with its process however that
        ends. The file is removed by whoever holds the lock last; a waiter that wakes up
        with a removed file in its hands opens the new one.

        Args:
            what: What is locked; part of a file name.
        """
        locks = self.directory / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        path = locks / what
        handle = _acquire(path)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            os.close(handle)


def _acquire(path: Path) -> int:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if _is_still(path, handle):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _is_still(path: Path, handle: int) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    mine = os.fstat(handle)
    return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)

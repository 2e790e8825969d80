"""Daemons that serve the whole host: several FIFTY_HOMEs share them, the last one stops them.

Each home that uses them says so by a file in their directory's `users`. Starting and
stopping is for one process of the host at a time.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO


@dataclass(frozen=True)
class SharedDirectory:
    """The directory of daemons that homes share.

    Attributes:
        path: Where; who stops the daemons removes it, so it is made when it is locked.
    """

    path: Path

    def add_user(self, home: Path) -> None:
        """Note that a home uses the daemons."""
        self._user(home).write_text(f"{home}\n")

    def forget_user(self, home: Path) -> None:
        """Note that a home no longer uses them."""
        self._user(home).unlink(missing_ok=True)

    def users(self) -> list[Path]:
        """The homes that use the daemons and still exist."""
        homes = [Path(file.read_text().strip()) for file in (self.path / "users").iterdir()]
        return [home for home in homes if home.is_dir()]

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One start or stop at a time on this host."""
        with self._locked():
            yield

    def _user(self, home: Path) -> Path:
        name = hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:16]
        return self.path / "users" / name

    def _locked(self) -> TextIO:
        """The lock file, locked until it is closed."""
        file = self.path / "lock"
        while True:
            (self.path / "users").mkdir(mode=0o755, parents=True, exist_ok=True)
            try:
                opened = file.open("w")
            except FileNotFoundError:
                continue  # who stopped the daemons has just removed the directory
            fcntl.flock(opened, fcntl.LOCK_EX)
            try:
                found = file.stat().st_ino
            except FileNotFoundError:
                found = None
            # A file that was removed while we waited for it keeps nobody else out.
            if found == os.fstat(opened.fileno()).st_ino:
                return opened
            opened.close()

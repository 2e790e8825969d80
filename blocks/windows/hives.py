"""Registry hives: single values and names of keys, by hivexsh, confined.

hivex is C, and a hive of a foreign disk is anything: it runs without network, with the one
file in reach, and within limits. (hivexget is not used: it is a shell script that pastes.)
"""

from __future__ import annotations

import re
from pathlib import Path

from blocks.commands import Confinement, Limits, run
from blocks.errors import UnsafeImage

#: The largest hives, SOFTWARE and COMPONENTS, have some hundred MiB.
HIVE_LIMIT = 512 * 1024**2
_LIMITS = Limits(memory_bytes=2 * 1024**3, cpu_s=20, file_bytes=0)
_VALUE_LIMIT = 64 * 1024
#: Keys are asked for by name only where they are called so; a name could be anything else.
_PLAIN = re.compile(r"[A-Za-z0-9 ._{}-]{1,120}")


class Hive:
    """A hive file.

    Args:
        path: The file.

    Raises:
        UnsafeImage: It is no hive.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            if file.read(4) != b"regf":
                raise UnsafeImage("a file in the place of a registry hive is none")

    def text(self, key: str, value: str) -> str | None:
        """A value as text (a number in decimal); None where there is none.

        Args:
            key: From the root, its parts joined by backslashes.
            value: The value's name.

        Raises:
            UnsafeImage: The hive cannot be read within the limits.
        """
        said = self._ask(key, f"lsval {_plain(value)}")
        return said if said is None else said[:_VALUE_LIMIT].removesuffix("\n")

    def number(self, key: str, value: str) -> int | None:
        """A number; None where there is none, or it is something else."""
        said = self.text(key, value)
        return int(said) if said is not None and re.fullmatch(r"-?[0-9]{1,20}", said) else None

    def exists(self, key: str) -> bool:
        """Whether there is a key."""
        return self._ask(key, "ls") is not None

    def keys(self, key: str) -> list[str]:
        """The plain names of the keys below a key; nothing where there is none."""
        return [
            name for name in (self._ask(key, "ls") or "").splitlines() if _PLAIN.fullmatch(name)
        ]

    def _ask(self, key: str, command: str) -> str | None:
        """What hivexsh says; None where what is asked for is not there."""
        path = "\\".join(_plain(part) for part in key.split("\\"))
        confined = Confinement(_LIMITS, reads=(self._path,))
        script = f"cd \\{path}\n{command}\n"
        words = ("hivexsh", self._path)
        done = run(*words, stdin=script, limits=confined, ok_codes=range(-64, 256))
        if done.returncode == 0:
            return done.stdout
        said = done.stderr.strip()
        if done.returncode == 1 and said.endswith("not found"):
            return None
        raise UnsafeImage(
            f"a registry hive cannot be read (hivexsh ended with {done.returncode}: {said[:160]})"
        )


def _plain(name: str) -> str:
    """A name that is a word of hivexsh's script as it is."""
    if not _PLAIN.fullmatch(name):
        raise ValueError(f"{name!r} is not asked for in a hive")
    return name

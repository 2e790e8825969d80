"""Files that another process reads while we write them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def write(path: Path, content: bytes, mode: int = 0o644) -> bool:
    """Put a file in place in one move, so that a reader sees all of it or nothing.

    Args:
        path: Where. What is half-written lies beside it, with a dot in front.
        content: Its bytes.
        mode: Its permission bits, whatever the umask.

    Returns:
        Whether there was no such file, or one with other content.
    """
    if path.is_file() and path.read_bytes() == content:
        return False
    half = path.with_name(f".{path.name}.{os.getpid()}")
    half.write_bytes(content)
    half.chmod(mode)
    half.replace(path)
    return True


def directory(path: Path, mode: int) -> Path:
    """Make a directory, and those above it, with these permission bits (umask or not)."""
    if not path.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)
    return path


def remove_tree(path: Path) -> bool:
    """Remove a directory with all in it; already gone is fine.

    Returns:
        Whether there was one.
    """
    if not path.is_dir():
        return False
    shutil.rmtree(path)
    return True


def remove_if_empty(path: Path) -> None:
    """Remove a directory if nothing is in it; already gone is fine."""
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()

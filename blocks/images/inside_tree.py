"""Paths in a tree that becomes a guest's root file system, and that never lead out of it."""

from __future__ import annotations

from pathlib import Path

from blocks.errors import InvalidRequest

#: As many links as Linux follows in one path (path_resolution(7)).
_MOST_LINKS = 40


def place_of(tree: Path, path: str) -> Path:
    """Where something of a path in the guest is to be put; its folders are made.

    Links on the way are followed as the guest would: `/run` in `var/run -> /run` is the
    tree's own. The last part is not followed: what is there is to be replaced.

    Args:
        tree: The guest's root; nobody else changes it meanwhile.
        path: The path in the guest, without a leading slash.

    Raises:
        InvalidRequest: The links go round in a circle, or something on the way is a file.
    """
    *folders, name = path.split("/")
    todo, links = folders[::-1], 0
    reached: list[str] = []
    while todo:
        part = todo.pop()
        if part in ("", "."):
            continue
        if part == "..":
            del reached[-1:]
            continue
        here = tree.joinpath(*reached, part)
        if here.is_symlink():
            links += 1
            if links > _MOST_LINKS:
                raise InvalidRequest(f"{path}: the links in the image go round in a circle")
            target = str(here.readlink())
            if target.startswith("/"):
                reached = []
            todo += target.split("/")[::-1]
            continue
        if here.exists() and not here.is_dir():
            raise InvalidRequest(f"{path}: /{'/'.join((*reached, part))} is no folder there")
        here.mkdir(exist_ok=True)
        reached.append(part)
    place = tree.joinpath(*reached, name)
    if place.is_dir() and not place.is_symlink():
        raise InvalidRequest(f"{path}: there is a folder there")
    return place

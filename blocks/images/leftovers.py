"""What is in an image store only while something is being made, or after a kill.

Exports (a mount and a daemon), build directories, files under their temporary names, and
mounts or loop devices on anything below the store's directory.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from blocks.commands import run
from blocks.errors import InvalidRequest
from blocks.images.exports import Export, Exports, end, mount_points
from blocks.images.files import is_part
from blocks.inventory import Found

EXPORT = "fuse-export"
BUILD = "image-build"
PART = "image-part"
MOUNT = "mount"
LOOP = "loop"


def inventory(directory: Path, exports: Exports) -> list[Found]:
    """All of it, in a stable order.

    The owner is the instance for an export (its directory's name), the image's id for a
    build and for a file of the catalogue, the checksum for a file of the cache.
    """
    known = exports.all()
    found = [_export(one) for one in known]
    found += [
        Found(kind=BUILD, name=str(path), owner=path.name, age_s=_age_s(path))
        for path in sorted((directory / "build").glob("*/"))
    ]
    found += [
        Found(kind=PART, name=str(path), owner=path.name.split(".")[0], age_s=_age_s(path))
        for folder in ("store", "cache")
        for path in sorted((directory / folder).glob("*"))
        if is_part(path)
    ]
    for device, backing in _loops():
        if directory in backing.parents:
            found.append(Found(kind=LOOP, name=device, owner="", detail=str(backing)))
    expected = {str(one.folder / "raw") for one in known}
    for point in sorted(mount_points()):
        if directory in Path(point).parents and point not in expected:
            found.append(Found(kind=MOUNT, name=point, owner=""))
    return found


def remove(found: Found, directory: Path, exports: Exports) -> None:
    """Remove one of them; already gone is fine.

    Raises:
        InvalidRequest: It is not one of ours.
    """
    if found.kind == EXPORT:
        for export in exports.all():
            if str(export.folder) == found.name:
                end(export)
        return
    if found.kind == LOOP:
        if any(name == found.name and directory in path.parents for name, path in _loops()):
            run("losetup", "--detach", found.name)
        return
    path = Path(found.name)
    if directory not in path.parents or ".." in path.parts:
        raise InvalidRequest(f"{found.name} does not belong to this image store")
    if found.kind == MOUNT:
        if found.name in mount_points():
            run("umount", "--lazy", path)
    elif found.kind == BUILD:
        if path.exists():
            shutil.rmtree(path)
    elif found.kind == PART:
        path.unlink(missing_ok=True)


def _export(export: Export) -> Found:
    return Found(
        kind=EXPORT,
        name=str(export.folder),
        owner=export.disk.parent.name if export.disk else "",
        age_s=_age_s(export.folder),
        detail=f"disk {export.disk}, pid {export.pid}, mounted {export.mounted}",
    )


def _age_s(path: Path) -> float | None:
    try:
        return max(0.0, time.time() - path.stat().st_mtime)
    except FileNotFoundError:
        return None


def _loops() -> list[tuple[str, Path]]:
    """Loop devices that are set up, with their files."""
    loops = []
    for path in sorted(Path("/sys/block").glob("loop*/loop/backing_file")):
        backing = path.read_text().rstrip("\n").removesuffix(" (deleted)")
        loops.append((f"/dev/{path.parts[3]}", Path(backing)))
    return loops

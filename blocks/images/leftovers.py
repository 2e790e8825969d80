"""What is in an image store: images, and what is there while something is being made.

Exports (a mount and a daemon), build directories, files under their temporary names, and
mounts or loop devices on anything below the store's directory. This host's cache is none
of it: `clean-cache` looks after that.
"""

from __future__ import annotations

import re
import shutil
import uuid
from pathlib import Path

from blocks import ages, changes
from blocks.commands import run
from blocks.errors import HostFault, InvalidRequest
from blocks.images.exports import Export, Exports, end, mount_points
from blocks.images.files import is_part
from blocks.inventory import Found
from blocks.resources.image import ImageFormat

IMAGE = "image-file"
EXPORT = "fuse-export"
BUILD = "image-build"
PART = "image-part"
MOUNT = "mount"
LOOP = "loop"
#: A file of the catalogue, what its build says of it, and its cloud-init's schema.
_OF_IMAGE = (*(f".{form}" for form in ImageFormat), ".json", ".schema")


def inventory(directory: Path, exports: Exports) -> list[Found]:
    """All of it, in an order in which it can be removed.

    The owner is the instance for an export (its directory's name), the image's id for a
    build and for a file of the catalogue, the checksum for a file of the cache; of a mount
    or loop device that of what it lies in.
    """
    known = exports.all()
    found = [*_mounts(directory, known), *_loops_below(directory, known)]
    found += [_export(one) for one in known]
    found += [
        Found(kind=BUILD, name=str(path), owner=path.name, age_s=ages.of_file(path))
        for path in sorted((directory / "build").glob("*/"))
        if _is_id(path.name)
    ]
    found += [
        Found(kind=IMAGE, name=str(path), owner=path.stem, age_s=ages.of_file(path))
        for path in sorted((directory / "store").glob("*"))
        if _is_id(path.stem) and path.suffix in _OF_IMAGE
    ]
    found += [
        Found(kind=PART, name=str(path), owner=path.name.split(".")[0], age_s=ages.of_file(path))
        for folder in ("store", "cache")
        for path in sorted((directory / folder).glob("*"))
        if is_part(path) and _is_name(path.name.split(".")[0])
    ]
    return found


def remove(found: Found, directory: Path, exports: Exports) -> None:
    """Remove one of them; already gone is fine.

    Raises:
        InvalidRequest: It is not one of ours.
        HostFault: It cannot be removed.
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
        _remove_tree(path)
    elif found.kind in (PART, IMAGE) and path.exists():
        path.unlink(missing_ok=True)
        changes.record(f"Removed {path}", ["rm", str(path)])


def _remove_tree(path: Path) -> None:
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise HostFault(
            f"{path} cannot be removed: {error.strerror}",
            hint="see what holds it: findmnt, fuser",
        ) from error
    changes.record(f"Removed the directory {path}", ["rm", "-r", str(path)])


def _mounts(directory: Path, known: list[Export]) -> list[Found]:
    """Mounts that are no export's, the inner ones first."""
    expected = {str(one.folder / "raw") for one in known}
    return [
        Found(kind=MOUNT, name=point, owner=_owner(Path(point), directory, known))
        for point in sorted(mount_points(), reverse=True)
        if directory in Path(point).parents and point not in expected
    ]


def _loops_below(directory: Path, known: list[Export]) -> list[Found]:
    return [
        Found(kind=LOOP, name=device, owner=_owner(backing, directory, known), detail=str(backing))
        for device, backing in _loops()
        if directory in backing.parents
    ]


def _export(export: Export) -> Found:
    return Found(
        kind=EXPORT,
        name=str(export.folder),
        owner=export.disk.parent.name if export.disk else "",
        age_s=ages.of_file(export.folder),
        detail=f"disk {export.disk}, pid {export.pid}, mounted {export.mounted}",
    )


def _owner(path: Path, directory: Path, known: list[Export]) -> str:
    """Whom something below the store's directory is for."""
    room, _, rest = str(path.relative_to(directory)).partition("/")
    name = rest.partition("/")[0]
    if room == "exports":
        return next((_export(one).owner for one in known if one.folder.name == name), "")
    return name.split(".")[0]


def _is_name(text: str) -> bool:
    """Whether a file may be called so by us: an image's id, or its checksum."""
    return _is_id(text) or re.fullmatch("[0-9a-f]{64}", text) is not None


def _is_id(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _loops() -> list[tuple[str, Path]]:
    """Loop devices that are set up, with their files."""
    loops = []
    for path in sorted(Path("/sys/block").glob("loop*/loop/backing_file")):
        backing = path.read_text().rstrip("\n").removesuffix(" (deleted)")
        loops.append((f"/dev/{path.parts[3]}", Path(backing)))
    return loops

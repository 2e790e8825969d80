"""ISO 9660 volumes: small media that a guest reads, with long names by Rock Ridge and Joliet."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import pycdlib
from pycdlib.pycdlibexception import PyCdlibException

from blocks.errors import InvalidRequest
from blocks.images.files import replacing

#: Joliet's limit for a name, in characters.
LONGEST_NAME = 64
#: ISO 9660's limit for the depth of directories.
DEEPEST = 7


def build_volume(path: Path, volume_id: str, files: Mapping[str, bytes | Path]) -> bool:
    """Make a volume, unless it is there already with the same content.

    It belongs to the owner of its directory, and only they can read it: it may hold secrets.

    Args:
        path: The ISO file.
        volume_id: Its label.
        files: Content, or the file that holds it, by the path in the volume.

    Returns:
        Whether it was made.

    Raises:
        InvalidRequest: A path is absolute, empty, too long or too deep, or holds `..`; or a
            file with content is not there.
    """
    wanted = {checked_name(name): content for name, content in files.items()}
    if _is_there(path, wanted):
        return False
    with replacing(path, mode=0o400) as part:
        _write(part, volume_id, wanted)
    return True


def checked_name(name: str) -> str:
    """A path inside a volume, in its plain form.

    Raises:
        InvalidRequest: It cannot be one.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or ".." in path.parts or "\x00" in name:
        raise InvalidRequest(f"{name!r} is not a path inside a volume")
    if len(path.parts) > DEEPEST or max(map(len, path.parts)) > LONGEST_NAME:
        raise InvalidRequest(f"{name!r} is too long or too deep for a volume")
    return str(path)


def read_volume(path: Path, limit: int | None = None) -> dict[str, bytes] | None:
    """What a volume of ours holds; None where there is none, or not a whole one.

    Args:
        path: The ISO file.
        limit: A volume with more bytes than this is not read.
    """
    if not path.is_file() or (limit is not None and path.stat().st_size > limit):
        return None
    iso = pycdlib.PyCdlib()
    try:
        iso.open(str(path))
    except (PyCdlibException, OSError):
        return None
    try:
        found = {}
        for folder, _folders, names in iso.walk(joliet_path="/"):
            for name in names:
                full = f"{folder.rstrip('/')}/{name}"
                content = BytesIO()
                iso.get_file_from_iso_fp(content, joliet_path=full)
                found[full.lstrip("/")] = content.getvalue()
        return found
    except PyCdlibException:
        return None
    finally:
        iso.close()


def _is_there(path: Path, wanted: Mapping[str, bytes | Path]) -> bool:
    """Whether the volume is there with this very content, all of it in memory's reach."""
    contents = {name: one for name, one in wanted.items() if isinstance(one, bytes)}
    return len(contents) == len(wanted) and read_volume(path) == contents


def _write(path: Path, volume_id: str, files: Mapping[str, bytes | Path]) -> None:
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=volume_id)
    # ISO 9660's own names have eight capitals at most: they are numbered.
    folders = {PurePosixPath("."): ""}
    with ExitStack() as stack:  # pycdlib reads the contents when it writes: they must live
        for number, (name, content) in enumerate(sorted(files.items())):
            parent = PurePosixPath(name).parent
            for folder in (*reversed(parent.parents), parent):
                if folder not in folders:
                    folders[folder] = f"{folders[folder.parent]}/D{len(folders)}"
                    iso.add_directory(
                        folders[folder], rr_name=folder.name, joliet_path=f"/{folder}"
                    )
            file, size = _opened(content, stack)
            iso.add_fp(
                file,
                size,
                f"{folders[parent]}/F{number}.;1",
                rr_name=PurePosixPath(name).name,
                joliet_path=f"/{name}",
            )
        iso.write(str(path))
    iso.close()


def _opened(content: bytes | Path, stack: ExitStack) -> tuple[BinaryIO, int]:
    if isinstance(content, bytes):
        return BytesIO(content), len(content)
    try:
        file = stack.enter_context(content.open("rb"))
    except OSError as error:
        raise InvalidRequest(f"{content} cannot be read: {error.strerror}") from error
    return file, content.stat().st_size

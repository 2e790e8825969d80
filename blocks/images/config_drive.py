"""The config drive: an ISO 9660 volume called `config-2`, as OpenStack gives it to guests.

Layout and names are OpenStack's ("Config drives" in Nova's administrator guide). Long names
are there twice, by Rock Ridge for Linux and by Joliet for Windows.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path, PurePosixPath

import pycdlib
from pycdlib.pycdlibexception import PyCdlibException

from blocks import changes
from blocks.errors import InvalidRequest
from blocks.images.files import replacing

VOLUME_ID = "config-2"


def build_config_drive(path: Path, files: Mapping[str, bytes]) -> None:
    """Make the config drive, unless it is there already with the same content.

    It belongs to the owner of its directory, and only they can read it: user data may
    hold secrets.

    Args:
        path: The ISO file.
        files: Content by path, e.g. `openstack/latest/meta_data.json`.

    Raises:
        InvalidRequest: A path is absolute, empty or holds `..`.
    """
    wanted = {_checked(name): content for name, content in files.items()}
    if _content(path) == wanted:
        return
    with replacing(path, mode=0o400) as part:
        _write(part, wanted)
    changes.record(
        f"Made the config drive {path} ({len(wanted)} files)",
        [
            "xorriso",
            "-as",
            "mkisofs",
            "-o",
            str(path),
            "-V",
            VOLUME_ID,
            "-J",
            "-r",
            "config-drive/",
        ],
    )


def _checked(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or ".." in path.parts or "\x00" in name:
        raise InvalidRequest(f"{name!r} is not a path inside a config drive")
    return str(path)


def _write(path: Path, files: Mapping[str, bytes]) -> None:
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=VOLUME_ID)
    # ISO 9660's own names have eight capitals at most: they are numbered.
    folders = {PurePosixPath("."): ""}
    contents = []  # pycdlib reads them when it writes: they must live until then
    for number, (name, content) in enumerate(sorted(files.items())):
        parent = PurePosixPath(name).parent
        for folder in (*reversed(parent.parents), parent):
            if folder not in folders:
                folders[folder] = f"{folders[folder.parent]}/D{len(folders)}"
                iso.add_directory(folders[folder], rr_name=folder.name, joliet_path=f"/{folder}")
        contents.append(BytesIO(content))
        iso.add_fp(
            contents[-1],
            len(content),
            f"{folders[parent]}/F{number}.;1",
            rr_name=PurePosixPath(name).name,
            joliet_path=f"/{name}",
        )
    iso.write(str(path))
    iso.close()


def _content(path: Path) -> dict[str, bytes] | None:
    """What a config drive holds; None where there is none, or not a whole one."""
    if not path.is_file():
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

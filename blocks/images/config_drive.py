"""The config drive: an ISO 9660 volume called `config-2`, as OpenStack gives it to guests.

Layout and names are OpenStack's ("Config drives" in Nova's administrator guide). Long names
are there twice, by Rock Ridge for Linux and by Joliet for Windows.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from blocks import changes
from blocks.images.iso9660 import build_volume

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
    if build_volume(path, VOLUME_ID, files):
        words = ["xorriso", "-as", "mkisofs", "-o", str(path), "-V", VOLUME_ID, "-J", "-r"]
        changes.record(
            f"Made the config drive {path} ({len(files)} files)", [*words, "config-drive/"]
        )

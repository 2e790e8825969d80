"""Disks put into the catalogue's directory: whole and looked at, or not there at all."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from blocks import changes
from blocks.images import qemu_img
from blocks.images.files import replacing
from blocks.images.inspection import inspect
from blocks.images.progress import Percents
from blocks.resources.base import Sha256
from blocks.resources.image import ImageFormat


class StoredImage(BaseModel):
    """An image's file: what the catalogue has to know of it.

    Attributes:
        path: The file.
        size_bytes: The file's length; `virtual_size_bytes` what the guest sees.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    format: ImageFormat
    sha256: Sha256
    size_bytes: int
    virtual_size_bytes: int


Stored = TypeVar("Stored", bound=StoredImage)


def store(
    disk: Path, form: ImageFormat, path: Path, what: str, tell: Percents | None = None
) -> StoredImage:
    """Copy a disk, compressed and without what is zero or below it, and look at the copy.

    Args:
        disk: A disk of ours that nobody writes meanwhile; a guest may have written its content.
        form: Its format.
        path: The file to make.
        what: What that is, in words.
        tell: Told now and then how far it is.

    Raises:
        UnsafeImage: The copy is not what it should be.
        HostFault: There is no room for it, or qemu-img failed.
    """
    with replacing(path, mode=0o644) as part:
        words = qemu_img.convert(disk, form, part, ImageFormat.QCOW2, compressed=True, tell=tell)
        qemu_img.check(part, ImageFormat.QCOW2)
        seen = inspect(part, ImageFormat.QCOW2)
        with part.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    changes.record(what, [*words[:-1], str(path)])
    return StoredImage(
        path=path,
        format=ImageFormat.QCOW2,
        sha256=digest,
        size_bytes=seen.size_bytes,
        virtual_size_bytes=seen.virtual_size_bytes,
    )


def write_note(note: Path, stored: StoredImage) -> None:
    """Note beside an image's file that it is there; last of all, as it says that it is whole."""
    with replacing(note, mode=0o644) as part:
        part.write_text(json.dumps(stored.model_dump(mode="json"), indent=2))


def read_note(kind: type[Stored], note: Path) -> Stored | None:
    """What an earlier try has made, if it came to its end and the file is there."""
    if not note.is_file():
        return None
    stored = kind.model_validate_json(note.read_text())
    there = stored.path.is_file() and stored.path.stat().st_size == stored.size_bytes
    return stored if there else None

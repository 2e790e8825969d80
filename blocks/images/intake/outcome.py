"""What the parts of an import find and make: kept by the build, and by a note in the store."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from blocks.images.stored import StoredImage
from blocks.resources.image import SourceFormat


class Inspected(BaseModel):
    """What was fetched, unpacked and found to be safe.

    Attributes:
        path: The file.
        format: What it is.
        virtual_size_bytes: What a guest sees.
        encrypted: Whether it is a qcow2 with LUKS inside.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    format: SourceFormat
    virtual_size_bytes: int
    encrypted: bool


class ImportedImage(StoredImage):
    """An image that was taken in.

    Attributes:
        encrypted: Whether it is a qcow2 with LUKS inside.
    """

    encrypted: bool

"""What the parts of an import find and make: kept by the build, and by a note in the store."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from blocks.resources.base import Sha256
from blocks.resources.image import ImageFormat, SourceFormat


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


class ImportedImage(BaseModel):
    """An image that was taken in: what the catalogue has to know of its file.

    Attributes:
        path: Its file in the store.
        size_bytes: The file's length; `virtual_size_bytes` what the guest sees.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    format: ImageFormat
    sha256: Sha256
    size_bytes: int
    virtual_size_bytes: int
    encrypted: bool

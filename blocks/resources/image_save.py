"""What callers ask for who want an image as a file."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from blocks.resources.base import ImageReference
from blocks.resources.form import CredentialsName, Form

_LONGEST_PATH = 2048


class SaveRequest(Form):
    """The image that is to be saved as a file of the host."""

    first_fields: ClassVar[tuple[str, ...]] = ("name", "file", "format")

    action: Literal["save"] = Field(default="save", title="What to do", description="save")
    name: ImageReference = Field(title="Image", description="Its name, NAME:VERSION, or its id.")
    file: str = Field(
        title="File",
        min_length=2,
        max_length=_LONGEST_PATH,
        description="The absolute path of the file to make; there must be none yet.",
    )
    format: Literal["raw", "qcow2"] | None = Field(
        default=None,
        title="Format",
        description="Empty: as it is in the catalogue, byte by byte.",
    )
    credentials: CredentialsName = "default"

    @field_validator("file")
    @classmethod
    def _path(cls, value: str) -> str:
        if any(ord(letter) < 32 or ord(letter) == 127 for letter in value):
            raise ValueError("holds control characters")
        if not value.startswith("/") or value.endswith("/"):
            raise ValueError("must be the absolute path of a file")
        return value

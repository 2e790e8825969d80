"""What callers ask for about the files in an image."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, StringConstraints, field_validator, model_validator

from blocks.resources.base import ImageReference, ResourceName
from blocks.resources.form import CredentialsName, Form
from blocks.resources.image import FIRST_VERSION, ImageVersion, image_reference
from blocks.resources.request import INJECT_LIMIT, InjectedFile

#: A build's name has so many characters.
_LONGEST_REFERENCE = 63
#: The ways into an image's files (`blocks.images.access`).
AccessMethod = Literal["debugfs", "loop", "nbd", "libguestfs"]


def _inside(value: str) -> str:
    path = PurePosixPath(value)
    if not path.is_absolute() or ".." in path.parts or path == PurePosixPath("/"):
        raise ValueError("must be an absolute path, without '..', and not '/'")
    return str(path)


GuestPath = Annotated[
    str,
    StringConstraints(max_length=1024, pattern=r"^[^\x00-\x1f\x7f]+$"),
    AfterValidator(_inside),
]


class EditRequest(Form):
    """The image that is to be made from another one by changing files in it."""

    first_fields: ClassVar[tuple[str, ...]] = ("image", "name", "inject", "remove", "generalise")

    image: ImageReference = Field(
        title="Image", description="The one to change: its name, NAME:VERSION, or its id."
    )
    name: ResourceName = Field(title="Name", description="What the new image is called.")
    version: ImageVersion = Field(
        default=FIRST_VERSION, title="Version", description="Tells it from others of its name."
    )
    inject: tuple[InjectedFile, ...] = Field(
        default=(), max_length=64, title="Files", description="What is put into it."
    )
    remove: tuple[GuestPath, ...] = Field(
        default=(),
        max_length=256,
        title="Remove",
        description="Files and directories that are removed from it, before others are put in.",
    )
    generalise: bool = Field(
        default=False,
        title="Generalise",
        description="Also take out what makes it one certain machine: machine id, host keys, "
        "leases, cloud-init's state, network names, login keys, logs.",
    )
    method: AccessMethod | None = Field(
        default=None,
        title="Method",
        description="The way in. `debugfs` and `libguestfs` never let the host's kernel read the "
        "image; `loop` and `nbd` do, and are refused for an image that was not built here. "
        "Empty: debugfs where it can.",
    )
    credentials: CredentialsName = "default"

    @field_validator("inject")
    @classmethod
    def _inject(cls, value: tuple[InjectedFile, ...]) -> tuple[InjectedFile, ...]:
        if sum(len(file.content) for file in value) > INJECT_LIMIT:
            raise ValueError(f"all files together are over the limit of {INJECT_LIMIT} bytes")
        if len({file.path for file in value}) != len(value):
            raise ValueError("names a path twice")
        return value

    @model_validator(mode="after")
    def _changes_something(self) -> EditRequest:
        if not self.inject and not self.remove and not self.generalise:
            raise ValueError("asks for no change: give inject, remove or generalise")
        if len(self.reference) > _LONGEST_REFERENCE:
            raise ValueError(f"NAME:VERSION has more than {_LONGEST_REFERENCE} characters")
        return self

    @property
    def reference(self) -> str:
        """What the image is called in one word."""
        return image_reference(self.name, self.version)


class CheckRequest(Form):
    """The image whose files are looked at."""

    name: ImageReference = Field(title="Image", description="Its name, NAME:VERSION, or its id.")
    method: AccessMethod | None = Field(
        default=None, title="Method", description="The way in; empty: debugfs where it can."
    )
    credentials: CredentialsName = "default"

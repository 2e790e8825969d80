"""What callers ask for about images and VMs: a certificate, and an image of a VM."""

from __future__ import annotations

from typing import ClassVar, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator, model_validator

from blocks.resources.base import ImageReference, ResourceName
from blocks.resources.form import CredentialsName, Form
from blocks.resources.image import FIRST_VERSION, ImageVersion, image_reference

#: A build's name has so many characters.
_LONGEST_REFERENCE = 63


class CertifyRequest(Form):
    """The image that is to be booted and tested."""

    name: ImageReference = Field(title="Image", description="Its name, NAME:VERSION, or its id.")
    flavor: ResourceName | None = Field(
        default=None,
        title="Flavor",
        description="Of the trial VM; empty: the smallest whose disk is larger than the image's, "
        "so that one sees whether it grows.",
    )
    timezone: str = Field(
        default="UTC",
        max_length=64,
        pattern=r"^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$",
        title="Time zone",
        description="The one that the image is meant to be in, such as `Europe/Vienna`.",
    )
    on_interrupt: Literal["rollback"] = Field(
        default="rollback",
        title="When its process is killed",
        description="The trial VM is always removed, and nothing is said of the image.",
    )
    credentials: CredentialsName = "default"

    @field_validator("timezone")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f"{value!r} is no time zone that is known here") from error
        return value


class CaptureRequest(Form):
    """The VM whose disk is to become an image."""

    first_fields: ClassVar[tuple[str, ...]] = ("vm", "name", "version", "quiesce")

    vm: str = Field(title="VM", max_length=63, description="The VM's name, or its id.")
    name: ResourceName = Field(title="Name", description="What the image is to be called.")
    version: ImageVersion = Field(
        default=FIRST_VERSION, title="Version", description="Tells it from others of its name."
    )
    generalise: bool = Field(
        default=True,
        title="Generalise",
        description="Take out what makes it one certain machine: machine id, host keys, leases, "
        "cloud-init's state, network names, login keys, logs.",
    )
    quiesce: bool = Field(
        default=False,
        title="Quiesce",
        description="Of a VM that runs: have its guest agent flush and freeze its file systems "
        "for the moment of the snapshot.",
    )
    credentials: CredentialsName = "default"

    @model_validator(mode="after")
    def _named(self) -> CaptureRequest:
        if len(self.reference) > _LONGEST_REFERENCE:
            raise ValueError(f"NAME:VERSION has more than {_LONGEST_REFERENCE} characters")
        return self

    @property
    def reference(self) -> str:
        """What the image is called in one word."""
        return image_reference(self.name, self.version)

"""What callers ask for about images that come from elsewhere."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from blocks.resources.base import ImageReference, ResourceName, Sha256
from blocks.resources.form import CredentialsName, Form
from blocks.resources.image import (
    FIRST_VERSION,
    ImageVersion,
    Properties,
    image_reference,
)

_LONGEST_SOURCE = 2048
#: A build's name has so many characters.
_LONGEST_REFERENCE = 63


class ImportRequest(Form):
    """The image that is to be taken in, and what it is to be called."""

    first_fields: ClassVar[tuple[str, ...]] = ("name", "source", "format", "sha256", "sha256sums")

    name: ResourceName = Field(title="Name", description="What it is called.")
    source: str = Field(
        title="Source",
        min_length=1,
        max_length=_LONGEST_SOURCE,
        description="An http or https URL, or the absolute path of a file on the host; also "
        "packed by gzip, xz or zstd. It is kept with the request: no password in it.",
    )
    format: Literal["raw", "qcow2", "vmdk", "vdi", "vhdx"] | None = Field(
        default=None,
        title="Format",
        description="What it has to be; empty: what its first bytes say.",
    )
    sha256: Sha256 | None = Field(
        default=None, title="SHA-256", description="The checksum that the source has to have."
    )
    sha256sums: bool = Field(
        default=False,
        title="SHA256SUMS",
        description="Compare it with the checksum in the file `SHA256SUMS` beside the source.",
    )
    version: ImageVersion = Field(
        default=FIRST_VERSION, title="Version", description="Tells it from others of its name."
    )
    to: Literal["qcow2", "raw"] = Field(
        default="qcow2", title="Kept as", description="Its format in the catalogue."
    )
    compress: bool = Field(
        default=True, title="Compress", description="For qcow2: with compressed clusters (zstd)."
    )
    encrypted: bool = Field(
        default=False,
        title="Encrypted",
        description="It is a qcow2 with LUKS inside, and stays one.",
    )
    passphrase_secret: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9-]{1,63}$",
        title="Passphrase from a secret",
        description="The name of a Prefect Secret block: its passphrase opens an encrypted "
        "image, and any other one is encrypted with it (LUKS).",
    )
    min_disk_gib: int = Field(
        default=0,
        ge=0,
        le=65536,
        title="Least disk (GiB)",
        description="What a flavor has to have; at least what a guest sees of it.",
    )
    min_ram_mib: int = Field(
        default=0,
        ge=0,
        le=4 * 1024**2,
        title="Least memory (MiB)",
        description="What a flavor has to have.",
    )
    os: ResourceName = Field(
        default="linux", title="Operating system", description="In a word, such as `linux`."
    )
    login_user: ResourceName = Field(
        default="root", title="Login user", description="Who one logs in as with the key."
    )
    visibility: Literal["private", "public"] = Field(
        default="private", title="Visibility", description="Public: every tenant can use it."
    )
    properties: Properties = Field(
        default_factory=dict,
        title="Properties",
        description="What else is said of it: `name=value`.",
    )
    credentials: CredentialsName = "default"

    @field_validator("source")
    @classmethod
    def _source(cls, value: str) -> str:
        if any(ord(letter) < 32 or ord(letter) == 127 for letter in value):
            raise ValueError("holds control characters")
        if "://" not in value and not value.startswith("/"):
            raise ValueError("must be an http or https URL, or an absolute path")
        return value

    @model_validator(mode="after")
    def _goes_together(self) -> ImportRequest:
        if self.sha256 is not None and self.sha256sums:
            raise ValueError("sha256 is given beside sha256sums; only one of them can be")
        if (self.encrypted or self.passphrase_secret) and self.to != "qcow2":
            raise ValueError("an encrypted image is kept as qcow2")
        return self

    @model_validator(mode="after")
    def _short_enough(self) -> ImportRequest:
        if len(self.reference) > _LONGEST_REFERENCE:
            raise ValueError(f"NAME:VERSION has more than {_LONGEST_REFERENCE} characters")
        return self

    @property
    def reference(self) -> str:
        """What the image is called in one word."""
        return image_reference(self.name, self.version)

    @property
    def is_url(self) -> bool:
        """Whether the source is a URL, and not a file."""
        return "://" in self.source


class ImageChange(Form):
    """What is changed of an image in the catalogue; its file stays as it is."""

    action: Literal["deactivate", "activate", "share", "unshare", "set"] = Field(
        title="What to do",
        description="deactivate (no new VM is made from it), activate, share, unshare, set",
    )
    name: ImageReference = Field(title="Name", description="Its name, NAME:VERSION, or its id.")
    why: str | None = Field(
        default=None, title="Why", max_length=200, description="For deactivate: told to users."
    )
    tenant: ResourceName | None = Field(
        default=None, title="Tenant", description="For share and unshare: with whom."
    )
    visibility: Literal["private", "public"] | None = Field(
        default=None, title="Visibility", description="For set. Public: every tenant can use it."
    )
    properties: Properties = Field(
        default_factory=dict, title="Properties", description="For set; an empty value removes it."
    )
    min_disk_gib: int | None = Field(
        default=None,
        ge=0,
        le=65536,
        title="Least disk (GiB)",
        description="For set: what a flavor has to have.",
    )
    min_ram_mib: int | None = Field(
        default=None,
        ge=0,
        le=4 * 1024**2,
        title="Least memory (MiB)",
        description="For set: what a flavor has to have.",
    )
    os: ResourceName | None = Field(
        default=None, title="Operating system", description="For set: in a word, such as `linux`."
    )
    login_user: ResourceName | None = Field(
        default=None, title="Login user", description="For set: who one logs in as with the key."
    )
    injectable: bool | None = Field(
        default=None, title="Injectable", description="For set: its root is ext2, 3 or 4."
    )
    credentials: CredentialsName = "default"

"""Images: what a guest's disk begins as."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from blocks.resources.base import PROPERTY_PATTERN, Resource, ResourceName, Sha256

#: What an image says of itself, `name=value`, as Glance's properties (`hw_disk_bus=virtio`).
PropertyName = Annotated[str, StringConstraints(pattern=PROPERTY_PATTERN)]
PropertyValue = Annotated[str, StringConstraints(pattern=r"^[ -~]{0,255}$")]
Properties = Annotated[dict[PropertyName, PropertyValue], Field(max_length=64)]

#: Tells images of one name apart, as people do: `1`, `24.04`, `2026-11-22`.
ImageVersion = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9._-]{0,30}[a-z0-9])?$")]

FIRST_VERSION = "1"


class ImageFormat(StrEnum):
    """The formats a base image may have."""

    RAW = "raw"
    QCOW2 = "qcow2"


class SourceFormat(StrEnum):
    """The formats that an import takes; what is neither raw nor qcow2 is converted."""

    RAW = "raw"
    QCOW2 = "qcow2"
    VMDK = "vmdk"
    VDI = "vdi"
    VHDX = "vhdx"


class Deactivation(Resource):
    """That an operator or owner withdrew an image: no new VM is made from it.

    Attributes:
        by: The tenant and role whose request it was.
        why: Their reason, in words.
        at: When.
    """

    by: str
    why: str
    at: datetime


class Image(Resource):
    """An image of the catalogue.

    Attributes:
        version: Tells it from others of its name; who names no version gets the newest
            active one.
        status: `active`, or `deactivated`: another one has its name now, and it stays for
            the VMs that were made from it; or `deactivation` tells who withdrew it.
        size_bytes: The file's length; `virtual_size_bytes` what the guest sees.
        login_user: Who one logs in as with the key.
        ready_marker: A regular expression; a line of the serial console that matches it
            says that the image's own first-boot work is done.
        boot_timeout_s: How long a guest of it may take to be ready, under QEMU's own
            emulation on a busy machine.
        injectable: Its root file system is ext4, so that step 30 may write into it.
        recipe: What it was built by, and when; None where it was not built here.
        visibility: `private`, `public`, or `shared` with the tenants in `shared_with` (ids).
        properties: What it asks of a host, and what else is said of it.
        encrypted: Its clusters are encrypted (LUKS); it needs `passphrase_secret` to boot.
        passphrase_secret: The name of the Prefect Secret block with its passphrase.
        parent_id: The image that this one was made from, by an edit or of a VM.
        source: Where it came from, in words; holds no credentials.
        certificate: What its last certification found (see `certify-image`).
        report: What its last static check found (see `check-image`).
    """

    id: str
    tenant_id: str | None
    name: ResourceName
    version: ImageVersion = FIRST_VERSION
    status: str = "active"
    deactivation: Deactivation | None = None
    format: ImageFormat
    sha256: Sha256
    size_bytes: int = Field(ge=0)
    virtual_size_bytes: int = Field(ge=0)
    min_disk_gib: int = 0
    min_ram_mib: int = 0
    visibility: str = "private"
    shared_with: tuple[str, ...] = ()
    os: str = "linux"
    architecture: str = "x86_64"
    login_user: str = "root"
    ready_marker: str | None = None
    boot_timeout_s: int = 300
    injectable: bool = True
    path: str
    recipe: ResourceName | None = None
    built_at: datetime | None = None
    properties: Mapping[PropertyName, PropertyValue] = Field(default_factory=dict)
    encrypted: bool = False
    passphrase_secret: str | None = None
    parent_id: str | None = None
    source: str | None = None
    certificate: dict[str, Any] | None = None
    report: dict[str, Any] | None = None

    @property
    def reference(self) -> str:
        """Its name, with the version where that is not the first."""
        return image_reference(self.name, self.version)


def image_reference(name: str, version: str) -> str:
    """What an image of a name and version is called in one word."""
    return name if version == FIRST_VERSION else f"{name}:{version}"

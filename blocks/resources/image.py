"""Images: what a guest's disk begins as."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from blocks.resources.base import Resource, ResourceName, Sha256


class ImageFormat(StrEnum):
    """The formats a base image may have."""

    RAW = "raw"
    QCOW2 = "qcow2"


class Image(Resource):
    """An image of the catalogue.

    Attributes:
        status: `active`, or `deactivated`: another one has its name now, and it stays for
            the VMs that were made from it.
        size_bytes: The file's length; `virtual_size_bytes` what the guest sees.
        login_user: Who one logs in as with the key.
        ready_marker: A regular expression; a line of the serial console that matches it
            says that the image's own first-boot work is done.
        boot_timeout_s: How long a guest of it may take to be ready, under QEMU's own
            emulation on a busy machine.
        injectable: Its root file system is ext4, so that step 30 may write into it.
        recipe: What it was built by, and when; None where it was not built here.
    """

    id: str
    tenant_id: str | None
    name: ResourceName
    status: str = "active"
    format: ImageFormat
    sha256: Sha256
    size_bytes: int = Field(ge=0)
    virtual_size_bytes: int = Field(ge=0)
    min_disk_gib: int = 0
    min_ram_mib: int = 0
    visibility: str = "private"
    os: str = "linux"
    architecture: str = "x86_64"
    login_user: str = "root"
    ready_marker: str | None = None
    boot_timeout_s: int = 300
    injectable: bool = True
    path: str
    recipe: ResourceName | None = None
    built_at: datetime | None = None

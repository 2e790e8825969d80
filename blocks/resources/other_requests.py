"""What callers ask for besides a new virtual machine: the parameters of the other flows."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from pydantic import Field

from blocks.resources.base import ResourceName
from blocks.resources.form import CredentialsName, Form


class VmReference(Form):
    """The virtual machine that it is about."""

    name: str = Field(
        title="Name", max_length=63, description="The VM's name, or its id (`fifty vm list`)."
    )
    credentials: CredentialsName = "default"


class NamedRequest(Form):
    """What it is about."""

    name: ResourceName = Field(title="Name", description="Its name, or its id.")
    credentials: CredentialsName = "default"


class BuildReference(Form):
    """The build that stopped."""

    id: UUID = Field(
        title="Id", description="The build's id, which is that of the thing it builds."
    )
    name: str = Field(
        default="", max_length=63, title="Name", description="For the run's name only."
    )


class ReconcileRequest(Form):
    """How stopped builds are brought to an end."""

    dispatch: bool = Field(
        default=False,
        title="A run for each",
        description="On: a run of `finish-build` for each, side by side. Off: this run does it, "
        "one after the other.",
    )


class ImageRequest(Form):
    """The image that is wanted."""

    recipe: ResourceName = Field(
        title="Recipe",
        description="How it is built: `micro` (boots in seconds), `debian-12`, `debian-13`, "
        "`ubuntu` (with cloud-init), or one of the site's own.",
    )
    folder: str | None = Field(
        default=None,
        pattern=r"^/[ -~]*$",
        max_length=4096,
        title="Folder",
        description="Where that recipe is, if it is none of the site's: for admins only.",
    )
    name: ResourceName | None = Field(
        default=None, title="Name", description="What it is called; empty: as its recipe."
    )
    rebuild: bool = Field(
        default=False,
        title="Rebuild",
        description="Also if it is there already: the new one takes its place.",
    )
    credentials: CredentialsName = "default"


class VolumeRequest(Form):
    """The change to a VM's volumes that is wanted."""

    action: Literal["attach", "detach"] = Field(title="Action")
    name: str = Field(title="VM", max_length=63, description="The VM's name, or its id.")
    size_gib: int | None = Field(
        default=None, ge=1, le=16384, title="Size", description="`attach`: GiB of a new volume."
    )
    volume: str | None = Field(
        default=None,
        max_length=63,
        title="Volume",
        description="Its id; of one that is plugged in also the guest's name for it.",
    )
    delete: bool = Field(
        default=False,
        title="Delete",
        description="`detach`: also delete it, with all that is on it.",
    )
    id: UUID | None = Field(
        default=None,
        title="New id",
        description="`attach`: the id of a new volume; the same again makes no other one.",
    )
    credentials: CredentialsName = "default"

"""What callers ask for besides a new virtual machine: the parameters of the other flows."""

from __future__ import annotations

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
        description="How it is built: `micro` (boots in seconds) or `debian-12` (with cloud-init).",
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

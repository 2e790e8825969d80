"""Snapshots of VMs, and what callers ask for about them."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from blocks.resources.base import Resource, ResourceName
from blocks.resources.form import CredentialsName, Form

SnapshotKind = Literal["external", "internal"]
SnapshotStatus = Literal["creating", "available", "reverting", "deleting"]


class Snapshot(Resource):
    """A snapshot of a VM's root disk, perhaps with its memory; volumes are never a part.

    Attributes:
        kind: `external`: a frozen layer of its own; `internal`: inside of the disk's file.
        memory: Whether it holds the guest's memory, and so a guest that runs.
        quiesced: Whether the guest's agent had flushed and frozen its file systems.
        frozen: The file that holds the disk as it was, in the instance's directory; it may
            become another one when snapshots are deleted. None for an internal one.
        interfaces: The guest's interfaces then, taps by MAC address: memory fits these only.
        parent_id: The snapshot that the VM had last been brought to, by taking or reverting.
        current: Whether the VM goes on from this one.
    """

    id: str
    tenant_id: str
    instance_id: str
    name: ResourceName
    kind: SnapshotKind
    status: SnapshotStatus = "creating"
    memory: bool = False
    quiesced: bool = False
    frozen: str | None = None
    interfaces: dict[str, str] = Field(default_factory=dict)
    parent_id: str | None = None
    current: bool = False
    created_at: datetime


class SnapshotRequest(Form):
    """The snapshot that is to be taken of a VM's root disk. Volumes are not a part of it."""

    first_fields: ClassVar[tuple[str, ...]] = ("vm", "name", "memory", "quiesce", "kind")

    vm: str = Field(title="VM", max_length=63, description="The VM's name, or its id.")
    name: ResourceName = Field(title="Name", description="What it is called, among the VM's own.")
    memory: bool = Field(
        default=False,
        title="Memory",
        description="Keep the memory of the guest, too, which has to run and to have no volumes.",
    )
    quiesce: bool = Field(
        default=False,
        title="Quiesce",
        description="Have the guest's agent flush and freeze its file systems meanwhile.",
    )
    kind: SnapshotKind = Field(
        default="external",
        title="Kind",
        description="`external` freezes the disk's file and goes on in a new one; `internal` "
        "keeps the snapshot inside of the file, of a guest that runs always with its memory. A VM "
        "has either, not both.",
    )
    request_id: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        title="Request id",
        description="The same id again is the same snapshot.",
    )
    credentials: CredentialsName = "default"

    @model_validator(mode="after")
    def _goes_together(self) -> SnapshotRequest:
        if self.quiesce and (self.memory or self.kind == "internal"):
            raise ValueError("quiesce is for external snapshots without memory")
        return self


class SnapshotReference(Form):
    """The snapshot that it is about."""

    first_fields: ClassVar[tuple[str, ...]] = ("vm", "name")

    vm: str = Field(title="VM", max_length=63, description="The VM's name, or its id.")
    name: str = Field(
        title="Name",
        max_length=63,
        description="The snapshot's name, or its id (`fifty vm snapshot list`).",
    )
    credentials: CredentialsName = "default"

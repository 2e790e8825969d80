"""Flavors, images, hosts and their claims, instances and volumes."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from blocks.state.tables.base import Base, now


class FlavorRow(Base):
    """A flavor."""

    __tablename__ = "flavors"

    name: Mapped[str] = mapped_column(primary_key=True)
    vcpus: Mapped[int]
    ram_mib: Mapped[int]
    disk_gib: Mapped[int]
    disk_mode: Mapped[str]
    limits: Mapped[dict[str, Any]]


class ImageRow(Base):
    """An image of the catalogue; name and version are unique among one owner's images."""

    __tablename__ = "images"
    __table_args__ = (UniqueConstraint("tenant_id", "name", "version"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str | None] = mapped_column(ForeignKey("tenants.id"))
    name: Mapped[str] = mapped_column(index=True)
    version: Mapped[str]
    status: Mapped[str]
    document: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=now)


class HostRow(Base):
    """A host; `document` holds the static part of `resources.Host`."""

    __tablename__ = "hosts"

    name: Mapped[str] = mapped_column(primary_key=True)
    enabled: Mapped[bool] = mapped_column(default=True)
    document: Mapped[dict[str, Any]]
    failures: Mapped[int] = mapped_column(default=0)
    heartbeat_at: Mapped[datetime | None]
    underlay_ip: Mapped[str | None]


class ClaimRow(Base):
    """What an instance holds of a host."""

    __tablename__ = "claims"

    instance_id: Mapped[str] = mapped_column(primary_key=True)
    host: Mapped[str] = mapped_column(ForeignKey("hosts.name"), index=True)
    vcpus: Mapped[int]
    ram_mib: Mapped[int]
    disk_gib: Mapped[int]


class InstanceRow(Base):
    """An instance.

    `live_name` is the name while the instance is not deleted and NULL afterwards, so that
    a name is unique among a tenant's living instances only.
    """

    __tablename__ = "instances"
    __table_args__ = (UniqueConstraint("tenant_id", "live_name"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    name: Mapped[str]
    live_name: Mapped[str | None]
    status: Mapped[str] = mapped_column(index=True)
    task_state: Mapped[str | None]
    flavor: Mapped[dict[str, Any]]
    image_id: Mapped[str] = mapped_column(index=True)
    image_name: Mapped[str]
    host: Mapped[str | None] = mapped_column(index=True)
    generation: Mapped[int]
    request_id: Mapped[str]
    flow_run_id: Mapped[str | None]
    fault: Mapped[dict[str, Any] | None]
    clocks: Mapped[dict[str, Any]]
    extra: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)


class VolumeRow(Base):
    """A data volume."""

    __tablename__ = "volumes"
    __table_args__ = (UniqueConstraint("instance_id", "index"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    instance_id: Mapped[str | None] = mapped_column(index=True)
    size_gib: Mapped[int]
    index: Mapped[int]
    device: Mapped[str]
    path: Mapped[str | None]
    attached: Mapped[bool] = mapped_column(default=False)

"""Networks, subnets, ports, addresses, routers and security groups."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from blocks.state.tables.base import Base


class NetworkRow(Base):
    """A network."""

    __tablename__ = "networks"
    __table_args__ = (UniqueConstraint("tenant_id", "name"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    name: Mapped[str]
    type: Mapped[str]
    driver: Mapped[str] = mapped_column(server_default="linuxbridge")
    physical_interface: Mapped[str | None]
    physical_bridge: Mapped[str | None]
    mtu: Mapped[int]
    external: Mapped[bool]
    shared: Mapped[bool]
    outside: Mapped[str]
    zone: Mapped[int] = mapped_column(unique=True)
    anchor_host: Mapped[str]
    port_security: Mapped[bool] = mapped_column(server_default="1")


class SegmentRow(Base):
    """A segment id in use; the primary key is what makes it unique of its type."""

    __tablename__ = "segments"

    type: Mapped[str] = mapped_column(primary_key=True)
    segment_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    network_id: Mapped[str] = mapped_column(ForeignKey("networks.id"), unique=True)


class SubnetRow(Base):
    """A subnet."""

    __tablename__ = "subnets"

    id: Mapped[str] = mapped_column(primary_key=True)
    network_id: Mapped[str] = mapped_column(ForeignKey("networks.id"), index=True)
    cidr: Mapped[str]
    gateway: Mapped[str | None]
    dns: Mapped[list[Any]]
    pools: Mapped[list[Any]]
    dhcp: Mapped[bool]
    lease_s: Mapped[int]
    host_routes: Mapped[list[Any]] = mapped_column(server_default="[]")


class PortRow(Base):
    """A port; its MAC and its mark are unique in the site."""

    __tablename__ = "ports"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    network_id: Mapped[str] = mapped_column(ForeignKey("networks.id"), index=True)
    kind: Mapped[str]
    device_id: Mapped[str | None] = mapped_column(index=True)
    index: Mapped[int] = mapped_column(default=0)
    mac: Mapped[str | None] = mapped_column(unique=True)
    tap: Mapped[str | None] = mapped_column(unique=True)
    mark: Mapped[int] = mapped_column(BigInteger, unique=True)
    host: Mapped[str | None] = mapped_column(index=True)
    port_security: Mapped[bool] = mapped_column(server_default="1")


class AddressRow(Base):
    """An address in use; the primary key is what makes it unique in its subnet."""

    __tablename__ = "addresses"

    subnet_id: Mapped[str] = mapped_column(ForeignKey("subnets.id"), primary_key=True)
    address: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    port_id: Mapped[str] = mapped_column(ForeignKey("ports.id", ondelete="CASCADE"), index=True)


class RouterRow(Base):
    """A router; its legs are ports whose device it is."""

    __tablename__ = "routers"
    __table_args__ = (UniqueConstraint("tenant_id", "name"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    name: Mapped[str]
    host: Mapped[str]
    snat: Mapped[bool] = mapped_column(default=True)
    routes: Mapped[list[Any]] = mapped_column(default=list, server_default="[]")


class FloatingIpRow(Base):
    """Where a floating IP leads to; its address is held by the port whose id it has.

    A guest's port that is deleted leaves it unattached.
    """

    __tablename__ = "floating_ips"
    __table_args__ = (UniqueConstraint("port_id", "fixed_address"),)

    id: Mapped[str] = mapped_column(ForeignKey("ports.id", ondelete="CASCADE"), primary_key=True)
    port_id: Mapped[str | None] = mapped_column(
        ForeignKey("ports.id", ondelete="SET NULL"), index=True
    )
    fixed_address: Mapped[int | None] = mapped_column(BigInteger)
    router_id: Mapped[str | None] = mapped_column(
        ForeignKey("routers.id", ondelete="SET NULL"), index=True
    )
    former_router_id: Mapped[str | None] = mapped_column(
        ForeignKey("routers.id", ondelete="SET NULL")
    )


class SecurityGroupRow(Base):
    """A security group."""

    __tablename__ = "security_groups"
    __table_args__ = (UniqueConstraint("tenant_id", "name"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    name: Mapped[str]


class SecurityGroupRuleRow(Base):
    """A rule of a group."""

    __tablename__ = "security_group_rules"

    id: Mapped[str] = mapped_column(primary_key=True)
    group_id: Mapped[str] = mapped_column(
        ForeignKey("security_groups.id", ondelete="CASCADE"), index=True
    )
    direction: Mapped[str]
    protocol: Mapped[str | None]
    port_min: Mapped[int | None]
    port_max: Mapped[int | None]
    remote_cidr: Mapped[str | None]
    remote_group_id: Mapped[str | None] = mapped_column(
        ForeignKey("security_groups.id", ondelete="CASCADE")
    )


class PortGroupRow(Base):
    """A port is in a group."""

    __tablename__ = "port_groups"

    port_id: Mapped[str] = mapped_column(
        ForeignKey("ports.id", ondelete="CASCADE"), primary_key=True
    )
    group_id: Mapped[str] = mapped_column(
        ForeignKey("security_groups.id"), primary_key=True, index=True
    )

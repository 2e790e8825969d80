"""Flavors and hosts in the state store."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from blocks.errors import HostFault, NotFound
from blocks.resources import DiskMode, Flavor, Host
from blocks.state.database import Database
from blocks.state.tables import ClaimRow, FlavorRow, HostRow
from blocks.state.tables.base import now


class Flavors:
    """Sizes of instances."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, flavor: Flavor) -> None:
        """Record a flavor, or change it; instances keep the one they were made with."""
        with self._database.write() as session:
            session.merge(FlavorRow(**flavor.model_dump(mode="json")))

    def get(self, name: str) -> Flavor:
        """A flavor.

        Raises:
            NotFound: The message lists those that there are.
        """
        with self._database.read() as session:
            row = session.get(FlavorRow, name)
            if row is None:
                known = ", ".join(session.scalars(select(FlavorRow.name).order_by(FlavorRow.name)))
                raise NotFound(
                    f"there is no flavor {name!r}; there are: {known or 'none'}",
                    hint="`fifty flavor list` shows them",
                )
            return self._model(row)

    def delete(self, name: str) -> None:
        """Forget a flavor; instances keep the one they were made with.

        Raises:
            NotFound: The message lists those that there are.
        """
        self.get(name)
        with self._database.write() as session:
            row = session.get(FlavorRow, name)
            if row is not None:
                session.delete(row)

    def list(self) -> list[Flavor]:
        """All flavors, the smallest first."""
        with self._database.read() as session:
            rows = session.scalars(select(FlavorRow).order_by(FlavorRow.ram_mib, FlavorRow.name))
            return [self._model(row) for row in rows]

    @staticmethod
    def _model(row: FlavorRow) -> Flavor:
        return Flavor(
            name=row.name,
            vcpus=row.vcpus,
            ram_mib=row.ram_mib,
            disk_gib=row.disk_gib,
            disk_mode=DiskMode(row.disk_mode),
            limits=row.limits,
        )


class Hosts:
    """Hosts, and what instances claim of them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def report(self, host: Host) -> None:
        """Record what a host says of itself; also its heartbeat."""
        document = host.model_dump(
            mode="json",
            exclude={
                "name",
                "enabled",
                "failures",
                "heartbeat_at",
                "instances",
                "claimed_vcpus",
                "claimed_ram_mib",
                "claimed_disk_gib",
                "underlay_ip",
            },
        )
        with self._database.write() as session:
            row = session.get(HostRow, host.name)
            if row is None:
                row = HostRow(name=host.name, failures=0)
                session.add(row)
            row.document = document
            row.underlay_ip = str(host.underlay_ip) if host.underlay_ip else None
            row.heartbeat_at = now()

    def list(self) -> list[Host]:
        """All hosts with their claims, by name."""
        with self._database.read() as session:
            rows = session.scalars(select(HostRow).order_by(HostRow.name)).all()
            return [self._model(session, row) for row in rows]

    def underlay_ip(self, name: str) -> IPv4Address | None:
        """Where a host's tunnels end, as it reported; None where it has none, or never did."""
        with self._database.read() as session:
            row = session.get(HostRow, name)
        return IPv4Address(row.underlay_ip) if row is not None and row.underlay_ip else None

    def count_failure(self, name: str, *, failed: bool) -> None:
        """Count a build that failed on a host, or forget the count after one that did not."""
        with self._database.write() as session:
            row = session.get(HostRow, name)
            if row is not None:
                row.failures = row.failures + 1 if failed else 0

    def claim(self, instance_id: str, name: str, wanted: dict[str, int]) -> bool:
        """Claim vcpus, ram_mib and disk_gib of a host for an instance, all or nothing.

        Returns:
            False where the same claim was there already.

        Raises:
            HostFault: The host has not enough left; another one may.
        """
        with self._database.write() as session:
            if session.get(ClaimRow, instance_id) is not None:
                return False
            row = session.get(HostRow, name)
            if row is None:
                raise HostFault(f"the host {name!r} is not known")
            host = self._model(session, row)
            lacking = [
                f"{key}: {wanted[key]} asked for, {free} free"
                for key, free in free_resources(host).items()
                if wanted[key] > free
            ]
            if lacking:
                raise HostFault(f"{name} has not enough left", details=lacking)
            session.add(ClaimRow(instance_id=instance_id, host=name, **wanted))
            return True

    def resize(self, instance_id: str, disk_gib: int) -> bool:
        """Let an instance claim so much of its host's disk, more or less than before.

        Returns:
            False where it claimed just that, or claims nothing: then it is on no host.

        Raises:
            HostFault: It would claim more than before, and the host has not enough left.
        """
        with self._database.write() as session:
            claim = session.get(ClaimRow, instance_id)
            if claim is None or claim.disk_gib == disk_gib:
                return False
            more = disk_gib - claim.disk_gib
            row = session.get_one(HostRow, claim.host)
            free = free_resources(self._model(session, row))["disk_gib"]
            if more > max(free, 0):
                raise HostFault(
                    f"{claim.host} has not enough left",
                    details=[f"disk_gib: {more} asked for, {free} free"],
                )
            claim.disk_gib = disk_gib
            return True

    def release(self, instance_id: str) -> bool:
        """Give a claim back; True where there was one."""
        with self._database.write() as session:
            row = session.get(ClaimRow, instance_id)
            if row is None:
                return False
            session.delete(row)
            return True

    def claim_of(self, instance_id: str) -> dict[str, Any] | None:
        """The claim of an instance."""
        with self._database.read() as session:
            row = session.get(ClaimRow, instance_id)
        if row is None:
            return None
        return {
            "host": row.host,
            "vcpus": row.vcpus,
            "ram_mib": row.ram_mib,
            "disk_gib": row.disk_gib,
        }

    @staticmethod
    def _model(session: Session, row: HostRow) -> Host:
        used = session.execute(
            select(
                func.coalesce(func.sum(ClaimRow.vcpus), 0),
                func.coalesce(func.sum(ClaimRow.ram_mib), 0),
                func.coalesce(func.sum(ClaimRow.disk_gib), 0),
                func.count(),
            ).where(ClaimRow.host == row.name)
        ).one()
        return Host(
            **row.document,
            name=row.name,
            enabled=row.enabled,
            failures=row.failures,
            heartbeat_at=row.heartbeat_at,
            claimed_vcpus=used[0],
            claimed_ram_mib=used[1],
            claimed_disk_gib=used[2],
            instances=used[3],
            underlay_ip=IPv4Address(row.underlay_ip) if row.underlay_ip else None,
        )


def free_resources(host: Host) -> dict[str, int]:
    """What is left of a host after overcommit: vcpus, ram_mib, disk_gib (Nova's ratios)."""
    return {
        "vcpus": int(host.vcpus * host.vcpu_ratio) - host.claimed_vcpus,
        "ram_mib": int(host.ram_mib * host.ram_ratio) - host.claimed_ram_mib,
        "disk_gib": int(host.disk_gib * host.disk_ratio) - host.claimed_disk_gib,
    }

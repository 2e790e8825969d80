"""What the state store has given out to something that is gone: found, and taken back.

A port with its addresses, a claim on a host, a reservation of quota, a volume's record, a
lease: each belongs to a build. Undoing a build gives them back; what is left all the same
(somebody has mended rows by hand, a program was wrong) would be missing for ever.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Delete, delete, select
from sqlalchemy.orm import Session

from blocks.errors import InvalidRequest
from blocks.inventory import Found
from blocks.resources import PortKind
from blocks.state.database import Database
from blocks.state.leases import Leases
from blocks.state.living import UNDER_WAY, living
from blocks.state.tables import (
    BuildRow,
    ClaimRow,
    LeaseRow,
    PortRow,
    QuotaClaimRow,
    RouterRow,
    VolumeRow,
)
from blocks.state.tables.base import now

_KINDS = ("port record", "claim", "quota claim", "volume record", "lease")
PORT, CLAIM, QUOTA, VOLUME, LEASE = _KINDS


class Allocations:
    """What belongs to nothing, as the audit wants it (`blocks.inventory.HasInventory`).

    Args:
        database: The state store's.
        leases: Its leases.
    """

    def __init__(self, database: Database, leases: Leases) -> None:
        self._database = database
        self._leases = leases

    def inventory(self) -> list[Found]:
        """All of it, in a stable order; what somebody living holds is not told."""
        with self._database.read() as session:
            return list(self._astray(session))

    def remove(self, found: Found) -> None:
        """Take one of them back; gone, or wanted by somebody living by now, is fine.

        Raises:
            InvalidRequest: The state store gives out nothing of this kind.
        """
        if found.kind not in _KINDS:
            raise InvalidRequest(f"the state store gives out no {found.kind}")
        with self._database.write() as session:
            if found.identity in {one.identity for one in self._astray(session)}:
                session.execute(_removal(found))

    def _astray(self, session: Session) -> Iterator[Found]:
        owners = living(session)
        routers = set(session.scalars(select(RouterRow.id)))
        for port in session.scalars(select(PortRow).order_by(PortRow.id)):
            if port.kind == PortKind.FLOATING_IP:
                continue  # its tenant's, attached or not, until it is deleted
            # A DHCP port cannot outlive its network: it refers to it.
            holders = owners if port.kind == PortKind.COMPUTE else routers
            if port.kind != PortKind.DHCP and port.device_id not in holders:
                yield _found(session, PORT, port.id, port.device_id, f"{port.kind}, {port.mac}")
        for claim in session.scalars(select(ClaimRow).order_by(ClaimRow.instance_id)):
            if claim.instance_id not in owners:
                detail = f"{claim.vcpus} vcpu, {claim.ram_mib} MiB, {claim.disk_gib} GiB"
                yield _found(session, CLAIM, claim.host, claim.instance_id, detail)
        for quota in session.scalars(select(QuotaClaimRow).order_by(QuotaClaimRow.id)):
            if quota.owner_id not in owners:
                yield _found(session, QUOTA, quota.resource, quota.owner_id, str(quota.amount))
        for volume in session.scalars(select(VolumeRow).order_by(VolumeRow.id)):
            if volume.instance_id not in owners:
                detail = f"{volume.size_gib} GiB"
                yield _found(session, VOLUME, volume.id, volume.instance_id, detail)
        for lease in session.scalars(select(LeaseRow).order_by(LeaseRow.build_id)):
            # The next run takes it over, where there is one to come.
            build = session.get(BuildRow, lease.build_id)
            to_come = build is not None and build.state in UNDER_WAY
            if not to_come and self._leases.is_gone(lease):
                yield _found(session, LEASE, lease.purpose, lease.build_id, f"process {lease.pid}")


def _found(session: Session, kind: str, name: str, owner: str | None, detail: str) -> Found:
    build = session.get(BuildRow, owner) if owner else None
    age = (now() - build.updated_at).total_seconds() if build is not None else None
    return Found(kind=kind, name=name, owner=owner or "", age_s=age, detail=detail)


def _removal(found: Found) -> Delete:
    if found.kind == QUOTA:
        return delete(QuotaClaimRow).where(
            QuotaClaimRow.owner_id == found.owner, QuotaClaimRow.resource == found.name
        )
    by_name = {PORT: PortRow.id, VOLUME: VolumeRow.id}
    if found.kind in by_name:
        return delete(by_name[found.kind].class_).where(by_name[found.kind] == found.name)
    by_owner = {CLAIM: ClaimRow.instance_id, LEASE: LeaseRow.build_id}
    return delete(by_owner[found.kind].class_).where(by_owner[found.kind] == found.owner)

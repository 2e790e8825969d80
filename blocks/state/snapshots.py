"""Snapshots in the state store."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from blocks.errors import Conflict, NotFound
from blocks.resources import Snapshot
from blocks.resources.snapshot import SnapshotStatus
from blocks.state.database import Database
from blocks.state.living import OVER
from blocks.state.tables import BuildRow, SnapshotRow

#: Each layer costs every read that finds nothing in it; libvirt ends at 200.
MOST_SNAPSHOTS = 32
#: The builds that are about a VM's snapshots; their plan says which VM.
CATALOGUES = ("snapshot", "revert")
_KEPT = {"memory", "quiesced", "interfaces"}


class Snapshots:
    """The instances' snapshots: of each instance one at a time is worked on."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, snapshot: Snapshot) -> Snapshot:
        """Record a snapshot that is to be taken, its parent chosen; there already is fine.

        Raises:
            Conflict: The instance has one of the name or of the other kind, or as many as it
                may; or another one of it is being worked on.
        """
        with self._database.write() as session:
            row = session.get(SnapshotRow, snapshot.id)
            if row is not None:
                return _snapshot(row)
            there = _of(session, snapshot.instance_id)
            _refuse_others_work(session, there, snapshot.id)
            if any(one.name == snapshot.name for one in there):
                raise Conflict(
                    f"the VM has a snapshot {snapshot.name!r} already",
                    hint="choose another name, or delete that one",
                )
            if other := [one.name for one in there if one.kind != snapshot.kind]:
                raise Conflict(
                    f"the VM has snapshots of the other kind: {', '.join(other)}",
                    hint="take one of that kind, or delete these",
                )
            if len(there) >= MOST_SNAPSHOTS:
                raise Conflict(f"the VM has {len(there)} snapshots; more are not possible")
            parent = next((one.id for one in there if one.current), None)
            row = SnapshotRow(
                **snapshot.model_dump(mode="json", exclude={*_KEPT, "parent_id", "created_at"}),
                parent_id=parent,
                claimed_by=snapshot.id,
                created_at=snapshot.created_at,
                kept=snapshot.model_dump(mode="json", include=_KEPT),
            )
            session.add(row)
            session.flush()
            return _snapshot(row)

    def get(self, snapshot_id: str) -> Snapshot:
        """A snapshot by its id.

        Raises:
            NotFound: There is none.
        """
        with self._database.read() as session:
            row = session.get(SnapshotRow, snapshot_id)
        if row is None:
            raise NotFound(f"there is no snapshot with id {snapshot_id}")
        return _snapshot(row)

    def find(self, instance_id: str, name: str) -> Snapshot:
        """An instance's snapshot by name or id.

        Raises:
            NotFound: It has none such.
        """
        known = self.of(instance_id)
        for one in known:
            if name in (one.name, one.id):
                return one
        names = ", ".join(one.name for one in known) or "none"
        raise NotFound(f"the VM has no snapshot {name!r}; there are: {names}")

    def of(self, instance_id: str) -> list[Snapshot]:
        """An instance's snapshots, oldest first."""
        with self._database.read() as session:
            return [_snapshot(row) for row in _of(session, instance_id)]

    def list(self) -> list[Snapshot]:
        """All snapshots."""
        with self._database.read() as session:
            return [_snapshot(row) for row in session.scalars(select(SnapshotRow))]

    def claim(self, snapshot_id: str, status: SnapshotStatus, build_id: str) -> None:
        """Say what is being done with a snapshot, and by which build; again is fine.

        Raises:
            NotFound: There is none.
            Conflict: Another build works on it, or on another one of the instance.
        """
        with self._database.write() as session:
            row = session.get(SnapshotRow, snapshot_id)
            if row is None:
                raise NotFound(f"there is no snapshot with id {snapshot_id}")
            _refuse_others_work(session, _of(session, row.instance_id), build_id)
            row.status, row.claimed_by = status, build_id

    def make_available(self, snapshot_id: str, build_id: str, *, current: bool = False) -> None:
        """Say that a build is through with a snapshot; where it has no claim, nothing happens.

        Args:
            snapshot_id: Which.
            build_id: The build.
            current: Whether the instance goes on from this one now.
        """
        with self._database.write() as session:
            row = session.get(SnapshotRow, snapshot_id)
            if row is None or row.claimed_by not in (build_id, None):
                return
            row.status, row.claimed_by = "available", None
            if current:
                for one in _of(session, row.instance_id):
                    one.current = one.id == snapshot_id

    def move(self, instance_id: str, layer: str, into: str) -> None:
        """Record that what was frozen in one file is in another one now."""
        with self._database.write() as session:
            for row in _of(session, instance_id):
                if row.frozen == layer:
                    row.frozen = into

    def forget(self, snapshot_id: str) -> None:
        """Forget a snapshot; those that came from it come from its parent now."""
        with self._database.write() as session:
            row = session.get(SnapshotRow, snapshot_id)
            if row is None:
                return
            for one in _of(session, row.instance_id):
                if one.parent_id == snapshot_id:
                    one.parent_id = row.parent_id
                if row.current and one.id == row.parent_id:
                    one.current = True
            session.delete(row)

    def forget_all(self, instance_id: str) -> None:
        """Forget the snapshots of an instance that is gone, and what was done with them."""
        with self._database.write() as session:
            for row in _of(session, instance_id):
                session.delete(row)
            builds = select(BuildRow).where(
                BuildRow.catalogue.in_(CATALOGUES),
                BuildRow.state.not_in(("undone", "refused", "deleted")),
                BuildRow.plan["instance"].as_string() == instance_id,
            )
            for build in session.scalars(builds):
                build.state = "deleted"


def _of(session: Session, instance_id: str) -> Sequence[SnapshotRow]:
    query = select(SnapshotRow).where(SnapshotRow.instance_id == instance_id)
    return session.scalars(query.order_by(SnapshotRow.created_at, SnapshotRow.id)).all()


def _refuse_others_work(session: Session, there: Sequence[SnapshotRow], build_id: str) -> None:
    """Check that no other build works on any of these; one that is over does not."""
    for one in there:
        if one.claimed_by in (None, build_id):
            continue
        build = session.get(BuildRow, one.claimed_by)
        if build is None or build.state in OVER:
            continue
        if (one.status, build.state) == ("reverting", "needs_attention"):
            # One that could not be undone is mended by another one, and not tried again.
            build.state = "undone"
        else:
            raise Conflict(
                f"the VM's snapshot {one.name!r} is {one.status}",
                hint="wait for that; `fifty reconcile` ends it where it has stopped",
            )


def _snapshot(row: SnapshotRow) -> Snapshot:
    columns = {name: getattr(row, name) for name in Snapshot.model_fields if name not in _KEPT}
    return Snapshot.model_validate({**columns, **row.kept})

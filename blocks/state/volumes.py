"""Data volumes in the state store."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from sqlalchemy import select

from blocks.errors import Conflict, NotFound
from blocks.resources import Instance, Volume
from blocks.resources.compute import DETACHED
from blocks.state.database import Database
from blocks.state.tables import VolumeRow

#: The guest's names for its volumes, by their place among them; `vdz` is the config drive.
DEVICES = tuple(f"vd{chr(ord('b') + index)}" for index in range(16))


class Volumes:
    """Data volumes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def plan(self, instance: Instance, sizes_gib: Sequence[int]) -> None:
        """Record an instance's volumes, ids and device names chosen, none of them made."""
        with self._database.write() as session:
            have = session.scalars(
                select(VolumeRow.index).where(VolumeRow.instance_id == instance.id)
            ).all()
            for index, size in enumerate(sizes_gib):
                if index not in have:
                    session.add(
                        VolumeRow(
                            id=str(uuid.uuid4()),
                            tenant_id=instance.tenant_id,
                            instance_id=instance.id,
                            size_gib=size,
                            index=index,
                            device=DEVICES[index],
                        )
                    )

    def of(self, instance_id: str) -> list[Volume]:
        """An instance's volumes, in order."""
        with self._database.read() as session:
            rows = session.scalars(
                select(VolumeRow)
                .where(VolumeRow.instance_id == instance_id)
                .order_by(VolumeRow.index)
            )
            return [_volume(row) for row in rows]

    def list(self) -> list[Volume]:
        """All volumes."""
        with self._database.read() as session:
            return [_volume(row) for row in session.scalars(select(VolumeRow))]

    def set_path(self, volume_id: str, path: str | None) -> None:
        """Record where a volume's file is to be."""
        with self._database.write() as session:
            row = session.get(VolumeRow, volume_id)
            if row is not None:
                row.path = path

    def set_attached(self, volume_id: str, *, attached: bool) -> None:
        """Record that a volume is connected to its instance, or no more."""
        with self._database.write() as session:
            row = session.get(VolumeRow, volume_id)
            if row is not None:
                row.attached = attached

    def forget(self, instance_id: str) -> None:
        """Remove the rows of an instance's volumes."""
        with self._database.write() as session:
            for row in session.scalars(
                select(VolumeRow).where(VolumeRow.instance_id == instance_id)
            ):
                session.delete(row)

    def add(self, instance: Instance, volume_id: str, size_gib: int) -> Volume:
        """Record one volume more for an instance that is there; the same again is the same.

        Raises:
            Conflict: It has as many as there can be, or the id is another volume's.
        """
        with self._database.write() as session:
            row = session.get(VolumeRow, volume_id)
            if row is None:
                mine = select(VolumeRow.index).where(VolumeRow.instance_id == instance.id)
                free = [i for i in range(len(DEVICES)) if i not in session.scalars(mine).all()]
                if not free:
                    raise Conflict(f"{instance.name} has {len(DEVICES)} volumes; more do not fit")
                row = VolumeRow(
                    id=volume_id,
                    tenant_id=instance.tenant_id,
                    instance_id=instance.id,
                    size_gib=size_gib,
                    index=free[0],
                    device=DETACHED,
                )
                session.add(row)
            if (row.instance_id, row.size_gib) != (instance.id, size_gib):
                raise Conflict("the id is that of another volume", hint="choose another one")
            return _volume(row)

    def set_device(self, volume_id: str, *, plugged: bool) -> Volume:
        """Record that a volume is to be plugged into its guest, or is to be out of it.

        The guest's name for it comes from its place among the instance's volumes, so that it
        is the same whenever it is plugged in.

        Raises:
            NotFound: There is none.
        """
        with self._database.write() as session:
            row = session.get(VolumeRow, volume_id)
            if row is None:
                raise NotFound(f"there is no volume {volume_id}")
            row.device = DEVICES[row.index] if plugged else DETACHED
            return _volume(row)

    def remove(self, volume_id: str) -> bool:
        """Forget one volume; False where that was so already."""
        with self._database.write() as session:
            row = session.get(VolumeRow, volume_id)
            if row is not None:
                session.delete(row)
            return row is not None


def _volume(row: VolumeRow) -> Volume:
    return Volume(
        id=row.id,
        tenant_id=row.tenant_id,
        instance_id=row.instance_id,
        size_gib=row.size_gib,
        index=row.index,
        device=row.device,
        path=row.path,
    )

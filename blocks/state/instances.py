"""Instances in the state store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from blocks.errors import Conflict, NotFound
from blocks.resources import Instance, InstanceStatus, TaskState
from blocks.state.database import Database
from blocks.state.tables import InstanceRow

_S = InstanceStatus

#: Which status may follow which; what is not here is a mistake of ours.
TRANSITIONS: frozenset[tuple[InstanceStatus, InstanceStatus]] = frozenset(
    {
        (_S.BUILD, _S.ACTIVE),
        (_S.BUILD, _S.ERROR),
        (_S.BUILD, _S.NEEDS_ATTENTION),
        (_S.BUILD, _S.DELETING),
        (_S.ACTIVE, _S.BUILD),
        (_S.ACTIVE, _S.SHUTOFF),
        (_S.ACTIVE, _S.ERROR),
        (_S.ACTIVE, _S.DELETING),
        (_S.SHUTOFF, _S.ACTIVE),
        (_S.SHUTOFF, _S.ERROR),
        (_S.SHUTOFF, _S.DELETING),
        # It could not be brought back to its host, and is tried once more.
        (_S.ERROR, _S.SHUTOFF),
        (_S.ERROR, _S.BUILD),
        (_S.ERROR, _S.NEEDS_ATTENTION),
        (_S.ERROR, _S.DELETING),
        (_S.NEEDS_ATTENTION, _S.BUILD),
        (_S.NEEDS_ATTENTION, _S.ERROR),
        (_S.NEEDS_ATTENTION, _S.DELETING),
        (_S.DELETING, _S.DELETED),
        (_S.DELETING, _S.NEEDS_ATTENTION),
        # An effect of it turned up after it was gone: it is deleted once more.
        (_S.DELETED, _S.DELETING),
    }
)


#: Told of an instance as it is now, and its status before; None where it is new.
Listener = Callable[[Instance, InstanceStatus | None], None]


class Instances:
    """Instances, by id and by their tenant's names.

    Attributes:
        listener: Called once for every change of a status, after it is committed.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.listener: Listener | None = None

    def record(self, instance: Instance) -> None:
        """Record an instance in BUILD; an earlier generation's row becomes this one.

        Raises:
            Conflict: Another living instance of the tenant has the name.
        """
        with self._database.write() as session:
            other = session.scalar(
                select(InstanceRow).where(
                    InstanceRow.tenant_id == instance.tenant_id,
                    InstanceRow.live_name == instance.name,
                    InstanceRow.id != instance.id,
                )
            )
            if other is not None:
                raise Conflict(
                    f"a VM named {instance.name!r} is there already ({other.status})",
                    hint=f"choose another name, or `fifty vm delete {instance.name}` first",
                )
            row = session.get(InstanceRow, instance.id)
            before = InstanceStatus(row.status) if row is not None else None
            document = instance.model_dump(mode="json", exclude={"created_at", "updated_at"})
            session.merge(InstanceRow(**document, live_name=instance.name))
        self._tell(instance, before)

    def get(self, instance_id: str) -> Instance:
        """An instance by its id.

        Raises:
            NotFound: There is none.
        """
        with self._database.read() as session:
            row = session.get(InstanceRow, instance_id)
        if row is None:
            raise NotFound(f"there is no VM with id {instance_id}")
        return _instance(row)

    def find(self, name: str, tenant_id: str | None = None) -> Instance:
        """A living instance by name or id; with None of any tenant.

        Raises:
            NotFound: There is none, or it is not the tenant's.
        """
        with self._database.read() as session:
            row = _find(session, name, tenant_id)
        if row is None:
            raise NotFound(f"there is no VM {name!r}", hint="`fifty vm list` shows those there are")
        return _instance(row)

    def list(self, tenant_id: str | None = None, *, deleted: bool = False) -> list[Instance]:
        """Instances by name; of one tenant or all; with or without the deleted ones."""
        query = select(InstanceRow).order_by(InstanceRow.name, InstanceRow.created_at)
        if tenant_id is not None:
            query = query.where(InstanceRow.tenant_id == tenant_id)
        if not deleted:
            query = query.where(InstanceRow.live_name.is_not(None))
        with self._database.read() as session:
            return [_instance(row) for row in session.scalars(query)]

    def set_status(
        self,
        instance_id: str,
        status: InstanceStatus,
        *,
        task_state: TaskState | None = None,
        fault: dict[str, Any] | None = None,
    ) -> bool:
        """Change an instance's status, along `TRANSITIONS` only.

        Args:
            instance_id: Which one.
            status: The new status; the same as before is fine.
            task_state: What is being done to it now.
            fault: Why, for ERROR and NEEDS_ATTENTION; other statuses forget the old one.

        Returns:
            False where there is no such instance (the build never got to record it).

        Raises:
            Conflict: The change is not one of `TRANSITIONS`.
        """
        with self._database.write() as session:
            row = session.get(InstanceRow, instance_id)
            if row is None:
                return False
            before = InstanceStatus(row.status)
            if before != status and (before, status) not in TRANSITIONS:
                raise Conflict(f"a VM that is {before} cannot become {status}")
            row.status = status
            row.task_state = task_state
            row.fault = fault
            if status is InstanceStatus.DELETED:
                row.live_name = None
        self._tell(_instance(row), before)
        return True

    def _tell(self, instance: Instance, before: InstanceStatus | None) -> None:
        if self.listener is not None and instance.status is not before:
            self.listener(instance, before)

    def update(self, instance_id: str, **values: Any) -> None:  # noqa: ANN401 - columns of many types
        """Set columns that are not the status: task_state, host, clocks, extra, ..."""
        with self._database.write() as session:
            row = session.get(InstanceRow, instance_id)
            if row is None:
                raise NotFound(f"there is no VM with id {instance_id}")
            for name, value in values.items():
                setattr(row, name, value)

    def note(self, instance_id: str, **facts: Any) -> None:  # noqa: ANN401 - JSON values
        """Add facts to the instance's `extra`, in one transaction (branches run at once)."""
        with self._database.write() as session:
            row = session.get(InstanceRow, instance_id)
            if row is not None:
                row.extra = {**row.extra, **facts}


def _find(session: Session, name: str, tenant_id: str | None) -> InstanceRow | None:
    query = select(InstanceRow).where(
        InstanceRow.live_name.is_not(None),
        (InstanceRow.live_name == name) | (InstanceRow.id == name),
    )
    if tenant_id is not None:
        query = query.where(InstanceRow.tenant_id == tenant_id)
    rows = session.scalars(query).all()
    if len(rows) > 1:
        raise Conflict(f"several tenants have a VM {name!r}", hint="use its id")
    return rows[0] if rows else None


def _instance(row: InstanceRow) -> Instance:
    values = {column.key: getattr(row, column.key) for column in row.__table__.columns}
    del values["live_name"]
    return Instance.model_validate(values)

"""Whose things are still wanted: the ids of the builds and VMs that are not gone.

A build that is not over holds what it has, and so does a VM that is there. What was undone,
refused or deleted holds nothing any more, whatever its rows say.
"""

from __future__ import annotations

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from blocks.state.tables import BuildRow, InstanceRow

#: How a build stands that has nothing to do any more.
OVER = ("complete", "undone", "refused", "deleted")
#: How one stands that a run works on, or that has stopped.
UNDER_WAY = ("building", "undoing", "deleting", "restoring")


def living(session: Session) -> set[str]:
    """The ids of the builds that are not over, and of the VMs that are there."""
    builds = select(BuildRow.id).where(BuildRow.state.not_in(OVER))
    there = (
        select(InstanceRow.id)
        .outerjoin(BuildRow, BuildRow.id == InstanceRow.id)
        .where(
            InstanceRow.live_name.is_not(None),
            or_(BuildRow.id.is_(None), BuildRow.state == "complete"),
        )
    )
    return {*session.scalars(builds), *session.scalars(there)}

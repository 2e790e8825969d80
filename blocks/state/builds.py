"""Builds in the state store: what was asked for, and how far it is."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy import case, select

from blocks.errors import Conflict, NotFound
from blocks.state.database import Database
from blocks.state.leases import holds, lost
from blocks.state.living import OVER, UNDER_WAY
from blocks.state.tables import BuildRow


class Build(BaseModel):
    """A build as recorded."""

    model_config = ConfigDict(frozen=True)

    id: str
    catalogue: str
    name: str
    credentials: str
    tenant_id: str | None
    request: dict[str, Any]
    request_id: str
    flow_run_id: str | None
    generation: int
    policy: str
    state: str
    plan: dict[str, Any]
    fault: dict[str, Any] | None
    accepted_at: datetime
    updated_at: datetime


class Builds:
    """Builds, found by their id, their request id or the flow run that works on them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def open(
        self,
        *,
        build_id: str,
        catalogue: str,
        name: str,
        credentials: str,
        request: dict[str, Any],
        request_id: str,
        flow_run_id: str | None,
        policy: str,
    ) -> tuple[Build, bool]:
        """Record a build, or find the one that this request id stands for.

        Returns:
            The build, and whether it is new.

        Raises:
            Conflict: The request id was used for a different request.
        """
        with self._database.write() as session:
            row = session.scalar(
                select(BuildRow).where(
                    BuildRow.catalogue == catalogue,
                    BuildRow.credentials == credentials,
                    BuildRow.request_id == request_id,
                )
            )
            if row is not None:
                if row.request != request:
                    raise Conflict(
                        f"the request id {request_id!r} was used for a different request",
                        hint="send the same request again, or use a new request id",
                    )
                return _build(row), False
            row = BuildRow(
                id=build_id,
                catalogue=catalogue,
                name=name,
                credentials=credentials,
                request=request,
                request_id=request_id,
                flow_run_id=flow_run_id,
                policy=policy,
                plan={},
            )
            session.add(row)
            session.flush()
            return _build(row), True

    def get(self, build_id: str) -> Build:
        """A build by its id.

        Raises:
            NotFound: There is none.
        """
        with self._database.read() as session:
            row = session.get(BuildRow, build_id)
        if row is None:
            raise NotFound(f"there is no build with id {build_id}")
        return _build(row)

    def find(
        self,
        catalogue: str,
        name: str,
        tenant_id: str,
        *,
        credentials: str | None = None,
        foreign: bool = False,
    ) -> Build:
        """A tenant's build by its id or name: what lives, before what was refused or deleted.

        Args:
            catalogue: What is built.
            name: Its name or id.
            tenant_id: Whose.
            credentials: Also a build that stopped before it was known whose it is, if it
                was asked for with this credentials block.
            foreign: Also another tenant's, by its id only.

        Raises:
            NotFound: There never was one, or it is another tenant's.
        """
        own = BuildRow.tenant_id == tenant_id
        if credentials is not None:
            own |= BuildRow.tenant_id.is_(None) & (BuildRow.credentials == credentials)
        wanted = own & ((BuildRow.name == name) | (BuildRow.id == name))
        if foreign:
            wanted |= BuildRow.id == name
        # Beside a living one, a build of the same name is one that will be refused.
        states = ("complete", "restoring", "kept", "needs_attention", "deleting")
        lives = BuildRow.state.in_(states)
        over = case(
            (lives, 0), (BuildRow.state == "deleted", 2), (BuildRow.state == "refused", 3), else_=1
        )
        with self._database.read() as session:
            row = session.scalar(
                select(BuildRow)
                .where(BuildRow.catalogue == catalogue, wanted)
                .order_by(case((own, 0), else_=1), over, BuildRow.accepted_at.desc())
                .limit(1)
            )
        if row is None:
            raise NotFound(f"there is no {catalogue} {name!r}")
        return _build(row)

    def of_request(self, catalogue: str, credentials: str, request_id: str) -> Build | None:
        """The build that a request id stands for; None where there is none yet."""
        with self._database.read() as session:
            row = session.scalar(
                select(BuildRow).where(
                    BuildRow.catalogue == catalogue,
                    BuildRow.credentials == credentials,
                    BuildRow.request_id == request_id,
                )
            )
            return _build(row) if row is not None else None

    def unfinished(self) -> list[Build]:
        """Builds that are not at an end."""
        with self._database.read() as session:
            rows = session.scalars(
                select(BuildRow).where(BuildRow.state.in_(UNDER_WAY)).order_by(BuildRow.accepted_at)
            )
            return [_build(row) for row in rows]

    def open_ends(self) -> list[Build]:
        """Builds that hold things and may go on: unfinished, kept, or in need of attention."""
        with self._database.read() as session:
            rows = session.scalars(
                select(BuildRow).where(BuildRow.state.not_in(OVER)).order_by(BuildRow.accepted_at)
            )
            return [_build(row) for row in rows]

    def over_since(self, before: datetime) -> set[str]:
        """The ids of the builds that came to an end, which is no more to be changed, before."""
        with self._database.read() as session:
            query = select(BuildRow.id).where(
                BuildRow.state.in_(OVER), BuildRow.updated_at < before
            )
            return set(session.scalars(query))

    def complete(self) -> list[Build]:
        """Builds of what is there, oldest first."""
        with self._database.read() as session:
            rows = session.scalars(
                select(BuildRow).where(BuildRow.state == "complete").order_by(BuildRow.accepted_at)
            )
            return [_build(row) for row in rows]

    def update(self, build_id: str, *, lease: str | None = None, **values: Any) -> None:  # noqa: ANN401
        """Set columns of a build, of many types.

        Args:
            build_id: Which build.
            lease: The token of the lease that the writer holds, where it works under one.
            values: The columns.

        Raises:
            LeaseLost: Somebody else has the lease by now; nothing was written.
        """
        with self._database.write() as session:
            if not holds(session, build_id, lease):
                raise lost(build_id)
            row = session.get_one(BuildRow, build_id)
            for name, value in values.items():
                setattr(row, name, value)

    def note(self, build_id: str, **facts: Any) -> None:  # noqa: ANN401 - JSON values
        """Add facts to a build's plan, in one transaction (branches run at once)."""
        with self._database.write() as session:
            row = session.get_one(BuildRow, build_id)
            row.plan = {**row.plan, **facts}


def _build(row: BuildRow) -> Build:
    return Build(**{name: getattr(row, name) for name in Build.model_fields})

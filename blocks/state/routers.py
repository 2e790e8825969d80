"""Routers in the state store."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from blocks.errors import Conflict, NotFound
from blocks.resources import PortKind, Router, RouterLeg
from blocks.state.database import Database
from blocks.state.networks import network_model, subnet_model
from blocks.state.ports import port_model
from blocks.state.tables import NetworkRow, PortRow, RouterRow, SubnetRow


class Routers:
    """Routers; their legs are ports."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, router: Router) -> bool:
        """Record a router; False where it is recorded already.

        Raises:
            Conflict: The tenant has another one of that name.
        """
        with self._database.write() as session:
            if session.get(RouterRow, router.id) is not None:
                return False
            other = session.scalar(
                select(RouterRow.id).where(
                    RouterRow.tenant_id == router.tenant_id, RouterRow.name == router.name
                )
            )
            if other is not None:
                raise Conflict(f"a router named {router.name!r} is there already")
            session.add(
                RouterRow(
                    id=router.id,
                    tenant_id=router.tenant_id,
                    name=router.name,
                    host=router.host,
                    snat=router.snat,
                )
            )
            return True

    def get(self, router_id: str) -> Router:
        """A router with its legs.

        Raises:
            NotFound: There is none.
        """
        with self._database.read() as session:
            row = session.get(RouterRow, router_id)
            if row is None:
                raise NotFound(f"there is no router with id {router_id}")
            return _router(session, row)

    def find(self, tenant_id: str, name: str) -> Router:
        """A tenant's router by name or id.

        Raises:
            NotFound: There is none.
        """
        for router in self.list(tenant_id):
            if name in (router.name, router.id):
                return router
        raise NotFound(f"there is no router {name!r}")

    def list(self, tenant_id: str | None = None) -> list[Router]:
        """Routers by name, of one tenant or all."""
        query = select(RouterRow).order_by(RouterRow.name)
        if tenant_id is not None:
            query = query.where(RouterRow.tenant_id == tenant_id)
        with self._database.read() as session:
            return [_router(session, row) for row in session.scalars(query).all()]

    def of_network(self, network_id: str) -> Router | None:
        """The router with an interface in a network."""
        with self._database.read() as session:
            row = session.scalar(
                select(RouterRow)
                .join(PortRow, PortRow.device_id == RouterRow.id)
                .where(PortRow.network_id == network_id, PortRow.kind == PortKind.ROUTER_INTERFACE)
            )
            return _router(session, row) if row is not None else None

    def delete(self, router_id: str) -> bool:
        """Forget a router that has no legs.

        Raises:
            Conflict: It still has interfaces or a gateway.
        """
        with self._database.write() as session:
            row = session.get(RouterRow, router_id)
            if row is None:
                return False
            legs = session.scalar(
                select(func.count()).select_from(PortRow).where(PortRow.device_id == router_id)
            )
            if legs:
                raise Conflict(
                    f"the router {row.name!r} still has {legs} interface(s)",
                    hint="`fifty router clear-gateway` and delete its networks first",
                )
            session.delete(row)
            return True


def _router(session: Session, row: RouterRow) -> Router:
    legs: list[RouterLeg] = []
    gateway = None
    for port_row in session.scalars(
        select(PortRow).where(PortRow.device_id == row.id).order_by(PortRow.id)
    ).all():
        port = port_model(session, port_row)
        if not port.addresses:
            continue  # it is being recorded, or whoever did so was stopped: no leg yet
        network_row = session.get_one(NetworkRow, port_row.network_id)
        subnet_row = session.get_one(SubnetRow, port.addresses[0].subnet_id)
        leg = RouterLeg(
            port=port,
            network=network_model(session, network_row),
            subnet=subnet_model(session, subnet_row),
        )
        if port.kind is PortKind.ROUTER_GATEWAY:
            gateway = leg
        else:
            legs.append(leg)
    return Router(
        id=row.id,
        tenant_id=row.tenant_id,
        name=row.name,
        host=row.host,
        snat=row.snat,
        legs=tuple(legs),
        gateway=gateway,
    )

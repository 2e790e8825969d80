"""Routers in the state store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from blocks.errors import Conflict, NotFound
from blocks.resources import PortKind, Route, Router, RouterLeg
from blocks.state.database import Database
from blocks.state.floating_ips import floating_ip_model
from blocks.state.networks import network_model, subnet_model
from blocks.state.ports import port_model
from blocks.state.quota import require_room
from blocks.state.tables import FloatingIpRow, NetworkRow, PortRow, RouterRow, SubnetRow


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
            require_room(session, router.tenant_id, "routers")
            session.add(
                RouterRow(
                    id=router.id,
                    tenant_id=router.tenant_id,
                    name=router.name,
                    host=router.host,
                    snat=router.snat,
                    routes=_documents(router.routes),
                )
            )
            return True

    def get(self, router_id: str) -> Router:
        """A router with its legs.

        Raises:
            NotFound: There is none.
        """
        with self._database.read() as session:
            return _router(session, _row(session, router_id))

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

    def set_snat(self, router_id: str, *, snat: bool) -> bool:
        """Say whether what goes out gets the gateway's address; False where it is so."""
        with self._database.write() as session:
            row = _row(session, router_id)
            changed = row.snat != snat
            row.snat = snat
            return changed

    def set_routes(self, router_id: str, routes: Sequence[Route]) -> bool:
        """Set all static routes of a router; False where these are what it has."""
        with self._database.write() as session:
            row = _row(session, router_id)
            documents = _documents(routes)
            changed = row.routes != documents
            row.routes = documents
            return changed

    def refuse_if_leg_used(self, router_id: str, network_id: str) -> None:
        """Check that a router can do without its leg, or its gateway, in a network.

        Raises:
            Conflict: Floating IPs are translated between there and elsewhere, or a static
                route leads there; the details name them.
        """
        router = self.get(router_id)
        legs = (*router.legs, *((router.gateway,) if router.gateway else ()))
        cidrs = [leg.subnet.cidr for leg in legs if leg.network.id == network_id]
        users = [
            f"floating IP {floating.address} of {floating.fixed_address}"
            for floating in router.floating_ips
            if floating.network_id == network_id
            or any(floating.fixed_address in cidr for cidr in cidrs if floating.fixed_address)
        ]
        users += [
            f"route to {route.destination} by {route.nexthop}"
            for route in router.routes
            if any(route.nexthop in cidr for cidr in cidrs)
        ]
        if users:
            raise Conflict(
                f"the router {router.name!r} needs its leg there",
                hint="detach the floating IPs (`fifty floating-ip detach`), and remove the routes "
                "(`fifty router set-routes`), first",
                details=users,
            )

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
                    hint="`fifty router remove-interface` and `clear-gateway` first",
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
    floating = session.scalars(
        select(FloatingIpRow)
        .where(FloatingIpRow.router_id == row.id, FloatingIpRow.port_id.is_not(None))
        .order_by(FloatingIpRow.id)
    )
    return Router(
        id=row.id,
        tenant_id=row.tenant_id,
        name=row.name,
        host=row.host,
        snat=row.snat,
        legs=tuple(legs),
        gateway=gateway,
        routes=tuple(Route.model_validate(route) for route in row.routes),
        floating_ips=tuple(floating_ip_model(session, each) for each in floating.all()),
    )


def _row(session: Session, router_id: str) -> RouterRow:
    row = session.get(RouterRow, router_id)
    if row is None:
        raise NotFound(f"there is no router with id {router_id}")
    return row


def _documents(routes: Sequence[Route]) -> list[Any]:
    return [route.model_dump(mode="json") for route in routes]

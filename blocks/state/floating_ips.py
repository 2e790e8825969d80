"""Floating IPs in the state store: addresses outside that lead to guests' ports."""

from __future__ import annotations

from ipaddress import IPv4Address

from sqlalchemy import select
from sqlalchemy.orm import Session

from blocks.errors import Conflict, InvalidRequest, NotFound
from blocks.resources import FloatingIp, PortKind
from blocks.state.addresses import choose_address
from blocks.state.database import Database
from blocks.state.ports import free_mark
from blocks.state.quota import require_room
from blocks.state.tables import AddressRow, FloatingIpRow, NetworkRow, PortRow, SubnetRow


class FloatingIps:
    """Floating IPs; each address is held by a port of kind `floating_ip` with the same id."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self, identifier: str, tenant_id: str, network_id: str, wanted: IPv4Address | None = None
    ) -> FloatingIp:
        """Take an address of an external network: the wanted one, or the first free.

        The same id again gives back what is recorded.

        Raises:
            Conflict: The wanted one is taken, none is free, or the network has no subnet.
            InvalidRequest: The network is not external, or the address not one of its hosts'.
            QuotaExceeded: The tenant may not have one more.
        """
        with self._database.write() as session:
            row = session.get(FloatingIpRow, identifier)
            if row is not None:
                return floating_ip_model(session, row)
            network = session.get_one(NetworkRow, network_id)
            if not network.external:
                raise InvalidRequest(
                    f"{network.name!r} is not an external network",
                    hint="`fifty network list` tells which networks are external",
                )
            subnet = session.scalar(
                select(SubnetRow)
                .where(SubnetRow.network_id == network_id)
                .order_by(SubnetRow.cidr)
                .limit(1)
            )
            if subnet is None:
                raise Conflict(f"{network.name!r} has no subnet")
            require_room(session, tenant_id, "floating_ips")
            address = choose_address(session, subnet, wanted)
            session.add(
                PortRow(
                    id=identifier,
                    tenant_id=tenant_id,
                    network_id=network_id,
                    kind=PortKind.FLOATING_IP.value,
                    mark=free_mark(session),
                )
            )
            session.flush()
            session.add(AddressRow(subnet_id=subnet.id, address=int(address), port_id=identifier))
            row = FloatingIpRow(id=identifier)
            session.add(row)
            session.flush()
            return floating_ip_model(session, row)

    def delete(self, identifier: str) -> bool:
        """Give a floating IP's address back; False where it is gone.

        Raises:
            Conflict: It leads to a port.
        """
        with self._database.write() as session:
            row = session.get(FloatingIpRow, identifier)
            if row is None:
                return False
            if row.port_id is not None:
                address = floating_ip_model(session, row).address
                raise Conflict(
                    f"{address} is attached", hint=f"`fifty floating-ip detach {address}` first"
                )
            session.delete(session.get_one(PortRow, identifier))
            return True

    def get(self, identifier: str) -> FloatingIp:
        """A floating IP by its id.

        Raises:
            NotFound: There is none.
        """
        with self._database.read() as session:
            return floating_ip_model(session, _row(session, identifier))

    def find(self, tenant_id: str, name: str) -> FloatingIp:
        """A tenant's floating IP by its address or id.

        Raises:
            NotFound: There is none.
        """
        for floating in self.list(tenant_id):
            if name in (str(floating.address), floating.id):
                return floating
        raise NotFound(
            f"there is no floating IP {name!r}",
            hint="`fifty floating-ip list` shows those there are",
        )

    def list(self, tenant_id: str | None = None) -> list[FloatingIp]:
        """Floating IPs by address, of one tenant or all."""
        query = select(FloatingIpRow).join(PortRow, PortRow.id == FloatingIpRow.id)
        if tenant_id is not None:
            query = query.where(PortRow.tenant_id == tenant_id)
        with self._database.read() as session:
            found = [floating_ip_model(session, row) for row in session.scalars(query).all()]
        return sorted(found, key=lambda floating: floating.address)

    def attach(self, identifier: str, port_id: str, address: IPv4Address | None = None) -> bool:
        """Let a floating IP lead to a guest's port; one that leads elsewhere is moved.

        Args:
            identifier: The floating IP.
            port_id: The guest's port.
            address: The port's address that it leads to; by default the port's first.

        Returns:
            False where it leads there already.

        Raises:
            InvalidRequest: That is no guest's port, or the address is not the port's.
            NotFound: The port is not there, or another tenant's.
            Conflict: No router leads from there to it, or another floating IP does already;
                or a router that had it before has not forgotten it yet.
        """
        with self._database.write() as session:
            row = _row(session, identifier)
            port = _guest_port(session, session.get_one(PortRow, row.id).tenant_id, port_id)
            fixed = _fixed(session, port, address)
            router_id = _router_between(session, port, session.get_one(PortRow, row.id).network_id)
            if (row.port_id, row.fixed_address, row.router_id) == (port.id, int(fixed), router_id):
                return False
            other = session.scalar(
                select(FloatingIpRow).where(
                    FloatingIpRow.port_id == port.id,
                    FloatingIpRow.fixed_address == int(fixed),
                    FloatingIpRow.id != row.id,
                )
            )
            if other is not None:
                theirs = floating_ip_model(session, other).address
                raise Conflict(
                    f"{theirs} leads to {fixed} already",
                    hint=f"`fifty floating-ip detach {theirs}` first",
                )
            _leave(row, router_id)
            row.port_id, row.fixed_address, row.router_id = port.id, int(fixed), router_id
            return True

    def detach(self, identifier: str) -> bool:
        """Let a floating IP lead nowhere; False where it does so already.

        Raises:
            Conflict: A router that had it before has not forgotten it yet.
        """
        with self._database.write() as session:
            row = _row(session, identifier)
            changed = (row.port_id, row.router_id) != (None, None)
            _leave(row, None)
            row.port_id = row.fixed_address = row.router_id = None
            return changed

    def forgotten(self, identifier: str, router_id: str) -> None:
        """Note that a router that had it before has forgotten it."""
        with self._database.write() as session:
            row = session.get(FloatingIpRow, identifier)
            if row is not None and row.former_router_id == router_id:
                row.former_router_id = None


def floating_ip_model(session: Session, row: FloatingIpRow) -> FloatingIp:
    """The model of a floating IP's row."""
    port = session.get_one(PortRow, row.id)
    number = session.scalar(select(AddressRow.address).where(AddressRow.port_id == row.id))
    attached = row.port_id is not None
    return FloatingIp(
        id=row.id,
        tenant_id=port.tenant_id,
        network_id=port.network_id,
        address=IPv4Address(number or 0),
        port_id=row.port_id,
        fixed_address=IPv4Address(row.fixed_address) if attached and row.fixed_address else None,
        router_id=row.router_id if attached else None,
        former_router_id=row.former_router_id,
    )


def _leave(row: FloatingIpRow, router_id: str | None) -> None:
    """Note which router has to forget it, when it goes to another one, or to none."""
    if row.router_id in (None, router_id):
        return
    if row.former_router_id not in (None, row.router_id):
        raise Conflict("the floating IP is being moved already", hint="try again")
    row.former_router_id = row.router_id


def _row(session: Session, identifier: str) -> FloatingIpRow:
    row = session.get(FloatingIpRow, identifier)
    if row is None:
        raise NotFound(f"there is no floating IP with id {identifier}")
    return row


def _guest_port(session: Session, tenant_id: str, port_id: str) -> PortRow:
    port = session.get(PortRow, port_id)
    if port is None or port.tenant_id != tenant_id:
        raise NotFound(f"there is no port {port_id!r}")
    if port.kind != PortKind.COMPUTE:
        raise InvalidRequest(
            f"the port {port_id} is a {port.kind} port", hint="a floating IP leads to a VM's port"
        )
    return port


def _fixed(session: Session, port: PortRow, address: IPv4Address | None) -> IPv4Address:
    held = [
        IPv4Address(number)
        for number in session.scalars(
            select(AddressRow.address)
            .where(AddressRow.port_id == port.id)
            .order_by(AddressRow.address)
        )
    ]
    if not held:
        raise Conflict(f"the port {port.id} has no address yet", hint="try again when it has one")
    if address is not None and address not in held:
        raise InvalidRequest(f"{address} is not an address of the port {port.id}")
    return address or held[0]


def _router_between(session: Session, port: PortRow, outside_id: str) -> str:
    """The router with a leg in the port's network and its gateway outside."""
    inside = select(PortRow.device_id).where(
        PortRow.network_id == port.network_id, PortRow.kind == PortKind.ROUTER_INTERFACE
    )
    router_id = session.scalar(
        select(PortRow.device_id).where(
            PortRow.network_id == outside_id,
            PortRow.kind == PortKind.ROUTER_GATEWAY,
            PortRow.device_id.in_(inside),
        )
    )
    if router_id is None:
        names = {
            row.id: row.name
            for row in session.scalars(
                select(NetworkRow).where(NetworkRow.id.in_((port.network_id, outside_id)))
            )
        }
        inner, outer = names[port.network_id], names[outside_id]
        raise Conflict(
            f"no router leads from {outer!r} to {inner!r}",
            hint=f"`fifty router add-interface ROUTER {inner}` and "
            f"`fifty router set-gateway ROUTER {outer}` first",
        )
    return router_id

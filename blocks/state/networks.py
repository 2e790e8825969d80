"""Networks and subnets in the state store."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from blocks.errors import Conflict, NotFound
from blocks.resources import (
    Network,
    NetworkType,
    Pool,
    PortKind,
    Route,
    Subnet,
)
from blocks.state.database import Database
from blocks.state.quota import require_room
from blocks.state.tables import (
    AddressRow,
    HostRow,
    NetworkRow,
    PortRow,
    SegmentRow,
    SubnetRow,
)

#: The largest segment id that is given out, for each type that has them (the VLAN ids 0 and
#: 4095 are reserved by IEEE 802.1Q; a VXLAN's number has 24 bits, and a GRE key, which has 32,
#: is given out of as many).
LAST_SEGMENT = {
    NetworkType.VLAN: 4094,
    NetworkType.VXLAN: 2**24 - 1,
    NetworkType.GRE: 2**24 - 1,
}
_ZONES = 2**16 - 1
#: Ports that keep a network from being deleted; the others go with it.
_IN_USE = (PortKind.COMPUTE, PortKind.ROUTER_GATEWAY, PortKind.FLOATING_IP)


class Networks:
    """Networks and their subnets."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, network: Network) -> Network:
        """Record a network: its conntrack zone and, where not given, its segment id chosen.

        The same id again gives back what is recorded.

        Raises:
            Conflict: The tenant has a network of that name, or the segment id is taken.
        """
        with self._database.write() as session:
            row = session.get(NetworkRow, network.id)
            if row is not None:
                return network_model(session, row)
            self._refuse_same_name(session, network)
            require_room(session, network.tenant_id, "networks")
            values = network.model_dump(mode="json", exclude={"segment_id"})
            values["zone"] = _free_zone(session)
            row = NetworkRow(**values)
            session.add(row)
            session.flush()
            if network.type in LAST_SEGMENT:
                segment = _segment(session, network)
                session.add(
                    SegmentRow(type=network.type.value, segment_id=segment, network_id=network.id)
                )
                session.flush()
            return network_model(session, row)

    @staticmethod
    def _refuse_same_name(session: Session, network: Network) -> None:
        other = session.scalar(
            select(NetworkRow.id).where(
                NetworkRow.tenant_id == network.tenant_id, NetworkRow.name == network.name
            )
        )
        if other is not None:
            raise Conflict(f"a network named {network.name!r} is there already")

    def add_subnet(self, subnet: Subnet) -> None:
        """Record a subnet; the same id again changes nothing.

        Raises:
            Conflict: Its CIDR overlaps another one of the network.
        """
        with self._database.write() as session:
            if session.get(SubnetRow, subnet.id) is not None:
                return
            for cidr in session.scalars(
                select(SubnetRow.cidr).where(SubnetRow.network_id == subnet.network_id)
            ):
                if IPv4Network(cidr).overlaps(subnet.cidr):
                    raise Conflict(f"{subnet.cidr} overlaps {cidr}, which the network has already")
            session.add(SubnetRow(**subnet.model_dump(mode="json", exclude={"dhcp_address"})))

    def get(self, network_id: str) -> Network:
        """A network by its id.

        Raises:
            NotFound: There is none.
        """
        with self._database.read() as session:
            row = session.get(NetworkRow, network_id)
            if row is None:
                raise NotFound(f"there is no network with id {network_id}")
            return network_model(session, row)

    def find(self, tenant_id: str, name: str) -> Network:
        """A network that the tenant can use or see: its own, a shared or an external one.

        Raises:
            NotFound: There is none of that name or id.
        """
        visible = self.list(tenant_id)
        for network in sorted(visible, key=lambda network: network.tenant_id != tenant_id):
            if name in (network.name, network.id):
                return network
        known = ", ".join(sorted(network.name for network in visible))
        raise NotFound(f"there is no network {name!r}; there are: {known or 'none'}")

    def list(self, tenant_id: str | None = None) -> list[Network]:
        """Networks by name; those a tenant can see, or all."""
        query = select(NetworkRow).order_by(NetworkRow.name)
        if tenant_id is not None:
            query = query.where(
                or_(NetworkRow.tenant_id == tenant_id, NetworkRow.shared, NetworkRow.external)
            )
        with self._database.read() as session:
            return [network_model(session, row) for row in session.scalars(query).all()]

    def subnets(self, network_id: str) -> Sequence[Subnet]:
        """A network's subnets."""
        with self._database.read() as session:
            return subnets_of(session, network_id)

    def peers(self, network_id: str, host: str) -> Sequence[IPv4Address]:
        """The underlay addresses of the other hosts that a network is on.

        Those that have a port of it bound, or are its anchor; a host without an underlay
        address has no tunnels.

        Args:
            network_id: The network.
            host: The host whose peers they are.
        """
        bound = select(PortRow.host).where(PortRow.network_id == network_id)
        anchor = select(NetworkRow.anchor_host).where(NetworkRow.id == network_id)
        query = select(HostRow.underlay_ip).where(
            HostRow.name != host,
            HostRow.underlay_ip.is_not(None),
            HostRow.name.in_(bound) | HostRow.name.in_(anchor),
        )
        with self._database.read() as session:
            return sorted(IPv4Address(address) for address in session.scalars(query) if address)

    def refuse_if_used(self, network_id: str) -> None:
        """Check that no guest is in a network, and no router has its gateway there.

        Raises:
            Conflict: Some are; the details name them.
        """
        with self._database.read() as session:
            rows = session.scalars(
                select(PortRow).where(
                    PortRow.network_id == network_id,
                    PortRow.kind.in_(_IN_USE),
                )
            ).all()
        if rows:
            raise Conflict(
                f"the network is in use by {len(rows)} port(s)",
                hint="delete its VMs and its floating IPs, and clear the gateways of its routers, "
                "first",
                details=[_holder(row) for row in rows],
            )

    def delete(self, network_id: str) -> bool:
        """Forget a network with its subnets, its segment and its DHCP port.

        Raises:
            Conflict: It is in use.
        """
        self.refuse_if_used(network_id)
        with self._database.write() as session:
            row = session.get(NetworkRow, network_id)
            if row is None:
                return False
            for port in session.scalars(select(PortRow).where(PortRow.network_id == network_id)):
                session.delete(port)
            session.flush()
            for table in (SubnetRow, SegmentRow):
                for part in session.scalars(select(table).where(table.network_id == network_id)):
                    session.delete(part)
            session.flush()
            session.delete(row)
            return True


def _holder(row: PortRow) -> str:
    return f"{row.kind} port {row.id}" + (f" of {row.device_id}" if row.device_id else "")


def network_model(session: Session, row: NetworkRow) -> Network:
    """The model of a network's row."""
    values = {column.key: getattr(row, column.key) for column in row.__table__.columns}
    segment = session.scalar(select(SegmentRow).where(SegmentRow.network_id == row.id))
    return Network.model_validate({**values, "segment_id": segment.segment_id if segment else None})


def subnets_of(session: Session, network_id: str) -> list[Subnet]:
    """The subnets of a network, each with its DHCP server's address."""
    rows = session.scalars(
        select(SubnetRow).where(SubnetRow.network_id == network_id).order_by(SubnetRow.cidr)
    ).all()
    return [subnet_model(session, row) for row in rows]


def subnet_model(session: Session, row: SubnetRow) -> Subnet:
    """The model of a subnet's row, with its DHCP server's address."""
    address = session.scalar(
        select(AddressRow.address)
        .join(PortRow, PortRow.id == AddressRow.port_id)
        .where(AddressRow.subnet_id == row.id, PortRow.kind == PortKind.DHCP)
    )
    return Subnet(
        id=row.id,
        network_id=row.network_id,
        cidr=IPv4Network(row.cidr),
        gateway=IPv4Address(row.gateway) if row.gateway else None,
        dns=tuple(IPv4Address(server) for server in row.dns),
        pools=tuple(Pool.model_validate(pool) for pool in row.pools),
        dhcp=row.dhcp,
        dhcp_address=IPv4Address(address) if address is not None else None,
        lease_s=row.lease_s,
        host_routes=tuple(Route.model_validate(route) for route in row.host_routes),
    )


def _free_zone(session: Session) -> int:
    used = set(session.scalars(select(NetworkRow.zone)))
    if len(used) >= _ZONES:
        raise Conflict("all conntrack zones are in use")
    while True:
        # At random, so that two sites on one host hardly ever choose the same one.
        zone = 1 + secrets.randbelow(_ZONES)
        if zone not in used:
            return zone


def _segment(session: Session, network: Network) -> int:
    used = set(
        session.scalars(select(SegmentRow.segment_id).where(SegmentRow.type == network.type.value))
    )
    if network.segment_id is None:
        last = LAST_SEGMENT[network.type]
        if sum(1 for number in used if number <= last) >= last:
            raise Conflict(f"all {last} segment ids of type {network.type.value} are in use")
        # At random, as another site on this host gives out the same kernel's VNIs.
        while (number := 1 + secrets.randbelow(last)) in used:
            pass
        return number
    if network.segment_id in used:
        raise Conflict(f"the {network.type.value} segment {network.segment_id} is taken")
    return network.segment_id

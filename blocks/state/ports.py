"""Ports and addresses in the state store."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from ipaddress import IPv4Address

from sqlalchemy import select
from sqlalchemy.orm import Session

from blocks.errors import Conflict, NotFound
from blocks.marks import tap_name
from blocks.resources import FixedIp, Port, PortKind
from blocks.state.addresses import choose_address
from blocks.state.database import Database
from blocks.state.tables import AddressRow, NetworkRow, PortGroupRow, PortRow, SubnetRow

#: Neutron's `base_mac`.
MAC_PREFIX = "fa:16:3e"
_MARK_BITS = 31


class Ports:
    """Ports: their marks, MAC addresses and fixed addresses, each given out once."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def plan(
        self,
        *,
        port_id: str,
        tenant_id: str,
        network_id: str,
        kind: PortKind,
        device_id: str | None,
        index: int = 0,
        host: str | None = None,
        port_security: bool | None = None,
    ) -> Port:
        """Record a port: its mark and tap name chosen, no MAC and no address yet.

        The same id again gives back what is recorded. Port security is as the network
        has it, unless said otherwise.
        """
        with self._database.write() as session:
            row = session.get(PortRow, port_id)
            if row is None:
                if port_security is None:
                    port_security = session.get_one(NetworkRow, network_id).port_security
                row = PortRow(
                    id=port_id,
                    tenant_id=tenant_id,
                    network_id=network_id,
                    kind=kind.value,
                    device_id=device_id,
                    index=index,
                    tap=tap_name(port_id),
                    mark=free_mark(session),
                    host=host,
                    port_security=port_security,
                )
                session.add(row)
                session.flush()
            return port_model(session, row)

    def give_mac(self, port_id: str) -> tuple[str, bool]:
        """Give a port a MAC address that no other port has.

        Returns:
            The address, and whether it is new (False: the port had it).
        """
        with self._database.write() as session:
            row = _row(session, port_id)
            if row.mac is not None:
                return row.mac, False
            while True:
                octets = secrets.token_bytes(3)
                mac = MAC_PREFIX + "".join(f":{octet:02x}" for octet in octets)
                if session.scalar(select(PortRow.id).where(PortRow.mac == mac)) is None:
                    row.mac = mac
                    return mac, True

    def take_mac(self, port_id: str) -> bool:
        """Take a port's MAC address away; True where it had one."""
        with self._database.write() as session:
            row = session.get(PortRow, port_id)
            if row is None or row.mac is None:
                return False
            row.mac = None
            return True

    def give_address(
        self, port_id: str, subnet_id: str, wanted: IPv4Address | None = None
    ) -> tuple[IPv4Address, bool]:
        """Give a port an address of a subnet: the wanted one, or the first free of its pools.

        Returns:
            The address, and whether it is new (False: the port had one there).

        Raises:
            Conflict: The wanted one is taken, or none is free.
            InvalidRequest: The wanted one is not an address for a host of the subnet.
        """
        with self._database.write() as session:
            held = session.scalar(
                select(AddressRow.address).where(
                    AddressRow.port_id == port_id, AddressRow.subnet_id == subnet_id
                )
            )
            if held is not None:
                return IPv4Address(held), False
            subnet = session.get_one(SubnetRow, subnet_id)
            address = choose_address(session, subnet, wanted)
            session.add(AddressRow(subnet_id=subnet_id, address=int(address), port_id=port_id))
            return address, True

    def give_gateway(self, port_id: str, subnet_id: str) -> IPv4Address:
        """Give a router's interface the gateway address of a subnet.

        Raises:
            Conflict: The subnet has none, or another port holds it.
        """
        with self._database.write() as session:
            subnet = session.get_one(SubnetRow, subnet_id)
            if subnet.gateway is None:
                raise Conflict(f"{subnet.cidr} has no gateway address")
            address = IPv4Address(subnet.gateway)
            row = session.get(AddressRow, (subnet_id, int(address)))
            if row is not None and row.port_id != port_id:
                raise Conflict(f"the gateway address {address} is held by port {row.port_id}")
            if row is None:
                session.add(AddressRow(subnet_id=subnet_id, address=int(address), port_id=port_id))
            return address

    def check_address(self, subnet_id: str, wanted: IPv4Address | None) -> None:
        """Check that `give_address` would work now, without giving anything.

        Raises:
            Conflict, InvalidRequest: As `give_address` does.
        """
        with self._database.read() as session:
            choose_address(session, session.get_one(SubnetRow, subnet_id), wanted)

    def take_addresses(self, port_id: str) -> list[IPv4Address]:
        """Free a port's addresses; those that it had."""
        with self._database.write() as session:
            rows = session.scalars(select(AddressRow).where(AddressRow.port_id == port_id)).all()
            for row in rows:
                session.delete(row)
            return [IPv4Address(row.address) for row in rows]

    def bind(self, port_id: str, host: str | None, groups: Sequence[str]) -> bool:
        """Complete a port: the host that it is for, and its security groups.

        Returns:
            False where it was so already.
        """
        with self._database.write() as session:
            row = _row(session, port_id)
            have = set(
                session.scalars(
                    select(PortGroupRow.group_id).where(PortGroupRow.port_id == port_id)
                )
            )
            if row.host == host and have == set(groups):
                return False
            row.host = host
            for member in session.scalars(
                select(PortGroupRow).where(PortGroupRow.port_id == port_id)
            ):
                session.delete(member)
            session.flush()
            session.add_all(PortGroupRow(port_id=port_id, group_id=group) for group in groups)
            return True

    def set_security(self, port_id: str, *, on: bool) -> bool:
        """Turn a port's anti-spoofing and security groups on or off; False where it is so."""
        with self._database.write() as session:
            row = _row(session, port_id)
            changed = row.port_security != on
            row.port_security = on
            return changed

    def get(self, port_id: str) -> Port:
        """A port by its id.

        Raises:
            NotFound: There is none.
        """
        with self._database.read() as session:
            return port_model(session, _row(session, port_id))

    def of_device(self, device_id: str) -> list[Port]:
        """The ports of an instance or router, in order."""
        query = select(PortRow).where(PortRow.device_id == device_id).order_by(PortRow.index)
        with self._database.read() as session:
            return [port_model(session, row) for row in session.scalars(query).all()]

    def list(self, *, kind: PortKind | None = None, network_id: str | None = None) -> list[Port]:
        """All ports, of one kind, of one network."""
        query = select(PortRow).order_by(PortRow.id)
        if kind is not None:
            query = query.where(PortRow.kind == kind)
        if network_id is not None:
            query = query.where(PortRow.network_id == network_id)
        with self._database.read() as session:
            return [port_model(session, row) for row in session.scalars(query).all()]

    def delete(self, port_id: str) -> bool:
        """Forget a port with its addresses; True where there was one."""
        with self._database.write() as session:
            row = session.get(PortRow, port_id)
            if row is None:
                return False
            session.delete(row)
            return True


def port_model(session: Session, row: PortRow) -> Port:
    """The model of a port's row."""
    addresses = session.scalars(
        select(AddressRow).where(AddressRow.port_id == row.id).order_by(AddressRow.address)
    ).all()
    groups = session.scalars(
        select(PortGroupRow.group_id)
        .where(PortGroupRow.port_id == row.id)
        .order_by(PortGroupRow.group_id)
    ).all()
    return Port(
        id=row.id,
        tenant_id=row.tenant_id,
        network_id=row.network_id,
        kind=PortKind(row.kind),
        device_id=row.device_id,
        index=row.index,
        mac=row.mac,
        addresses=tuple(
            FixedIp(subnet_id=held.subnet_id, address=IPv4Address(held.address))
            for held in addresses
        ),
        security_groups=tuple(groups),
        tap=row.tap,
        mark=row.mark,
        host=row.host,
        port_security=row.port_security,
    )


def _row(session: Session, port_id: str) -> PortRow:
    row = session.get(PortRow, port_id)
    if row is None:
        raise NotFound(f"there is no port with id {port_id}")
    return row


def free_mark(session: Session) -> int:
    """A packet mark that no port has."""
    while True:
        # At random, so that two sites on one host hardly ever choose the same one.
        mark = 1 + secrets.randbelow(2**_MARK_BITS - 1)
        if session.scalar(select(PortRow.id).where(PortRow.mark == mark)) is None:
            return mark

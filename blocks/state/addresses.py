"""Which address of a subnet is given out next, in the transaction that gives it out."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from sqlalchemy import select
from sqlalchemy.orm import Session

from blocks.errors import Conflict, InvalidRequest
from blocks.resources import Pool
from blocks.state.tables import AddressRow, SubnetRow


def choose_address(session: Session, subnet: SubnetRow, wanted: IPv4Address | None) -> IPv4Address:
    """The wanted address of a subnet, or the first free one of its pools.

    Raises:
        Conflict: The wanted one is taken, or none is free.
        InvalidRequest: The wanted one is not an address for a host of the subnet.
    """
    if wanted is None:
        return _first_free(session, subnet)
    return _check_wanted(session, subnet, wanted)


def _taken(session: Session, subnet: SubnetRow) -> set[int]:
    taken = set(
        session.scalars(select(AddressRow.address).where(AddressRow.subnet_id == subnet.id))
    )
    if subnet.gateway:
        taken.add(int(IPv4Address(subnet.gateway)))
    return taken


def _first_free(session: Session, subnet: SubnetRow) -> IPv4Address:
    taken = _taken(session, subnet)
    for document in subnet.pools:
        pool = Pool.model_validate(document)
        for number in range(int(pool.first), int(pool.last) + 1):
            if number not in taken:
                return IPv4Address(number)
    raise Conflict(
        f"no address is free in {subnet.cidr}",
        hint="delete something there, or use another network",
    )


def _check_wanted(session: Session, subnet: SubnetRow, wanted: IPv4Address) -> IPv4Address:
    cidr = IPv4Network(subnet.cidr)
    if wanted not in cidr:
        raise InvalidRequest(f"{wanted} is not in {cidr}")
    if wanted in (cidr.network_address, cidr.broadcast_address):
        raise InvalidRequest(f"{wanted} is the network or broadcast address of {cidr}")
    # A router's own leg takes the gateway's address; nothing else may.
    if subnet.gateway and wanted == IPv4Address(subnet.gateway):
        raise Conflict(f"{wanted} is the gateway of {cidr}")
    if int(wanted) in _taken(session, subnet):
        raise Conflict(f"{wanted} is taken")
    return wanted

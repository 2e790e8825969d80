"""The interfaces that a VM is wanted with: each a network, and perhaps its address there.

`NETWORK`, or `NETWORK:ADDRESS`, in the order of the guest's interfaces; as
`openstack server create` has it with `--nic net-id=...,v4-fixed-ip=...`.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, Field, StringConstraints

from blocks.resources.address_forms import NO_IPV6
from blocks.resources.base import NAME_PATTERN, PATTERNS

_PATTERN = NAME_PATTERN.removesuffix("$") + r"(:[0-9A-Fa-f:.]{2,39})?$"
PATTERNS[_PATTERN] = "a network's name, or NAME:ADDRESS with an IPv4 address"
_LONGEST = 63 + 1 + 39


class Nic(NamedTuple):
    """One interface.

    Attributes:
        network: The network's name or id.
        address: The address wanted there; None is the next free one.
    """

    network: str
    address: IPv4Address | None


def parse_nic(text: str) -> Nic:
    """A network choice in its parts.

    Raises:
        ValueError: What follows the network's name is no IPv4 address.
    """
    network, colon, address = text.partition(":")
    if not colon:
        return Nic(network, None)
    try:
        return Nic(network, IPv4Address(address))
    except AddressValueError:
        pass
    try:
        IPv6Address(address)
    except AddressValueError:
        raise ValueError(f"{address!r} is not an IPv4 address") from None
    raise ValueError(f"{NO_IPV6}: give an IPv4 address")


def nics_of(networks: Sequence[str], first_address: IPv4Address | None) -> tuple[Nic, ...]:
    """The interfaces of a request.

    Args:
        networks: Valid choices, in order.
        first_address: The first one's address, where that is asked for by itself.
    """
    nics = [parse_nic(choice) for choice in networks]
    if nics and first_address is not None:
        nics[0] = nics[0]._replace(address=first_address)
    return tuple(nics)


def _checked(text: str) -> str:
    parse_nic(text)
    return text


#: A network by name or id, with or without the address wanted in it.
NetworkChoice = Annotated[
    str,
    StringConstraints(pattern=_PATTERN, max_length=_LONGEST),
    AfterValidator(_checked),
    Field(description=PATTERNS[_PATTERN]),
]

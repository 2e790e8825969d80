"""Addresses as callers give them: IPv4 alone, and what may be meant where one is wrong."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, ip_network
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from blocks.resources.form import Form

#: In every refusal of IPv6, which makes it `Unsupported` (`tasks.draft.refusal`).
NO_IPV6 = "IPv6 is not supported"


def _refuse_ipv6(value: object) -> object:
    """Say so where an IPv6 address or network is given; what is neither is left to pydantic."""
    if isinstance(value, int):
        # `ipaddress` would take 1 for 0.0.0.1.
        raise ValueError("is a number, not an IPv4 address")
    try:
        version = ip_network(str(value), strict=False).version
    except ValueError:
        return value
    if version != 4:
        raise ValueError(f"{NO_IPV6}; give an IPv4 address")
    return value


def _refuse_host_bits(value: object) -> object:
    """Say what may be meant by a network with host bits; the rest is left to pydantic."""
    try:
        meant = IPv4Network(str(value), strict=False)
    except ValueError:
        return value
    if str(meant.network_address) != str(value).split("/", maxsplit=1)[0]:
        raise ValueError(f"has host bits set; {meant} is meant?")
    return value


def _refuse_several(value: object) -> object:
    """Say so where several subnets are meant, as a list or with commas."""
    if isinstance(value, list | tuple) or "," in str(value):
        raise ValueError(
            "a network has one subnet; give the other a network of its own, on the same router"
        )
    return value


def _refuse_no_gateway(value: object) -> object:
    """Say so where no gateway is meant: `none`, or what YAML makes of `no`."""
    if value is False or str(value).lower() in ("none", "no", "-"):
        raise ValueError(
            "every subnet has a gateway address; without a router nothing answers there"
        )
    return value


def _listed(value: object) -> object:
    """One text where several may be."""
    return (value,) if isinstance(value, str) else value


def _refuse_ipv6_pool(value: object) -> object:
    """Say so where a pool's first or last address is one of IPv6."""
    for end in str(value).split("-"):
        _refuse_ipv6(end.strip())
    return value


def _refuse_icmpv6(value: object) -> object:
    """Say so where ICMP for IPv6 is meant, by the names that Neutron takes."""
    if str(value).lower() in ("icmpv6", "ipv6-icmp"):
        raise ValueError(f"{NO_IPV6}; `icmp` is for IPv4")
    return value


Address = Annotated[IPv4Address, BeforeValidator(_refuse_ipv6)]
#: A subnet's; validators that are written last come first.
Gateway = Annotated[Address, BeforeValidator(_refuse_no_gateway)]
#: An IPv4 network without host bits.
Cidr = Annotated[IPv4Network, BeforeValidator(_refuse_host_bits), BeforeValidator(_refuse_ipv6)]
#: A subnet's CIDR as it was typed: what is wrong with it is told with what may be meant.
CidrText = Annotated[
    str,
    Field(max_length=64),
    BeforeValidator(_refuse_ipv6),
    BeforeValidator(_refuse_several),
]
_PoolText = Annotated[str, Field(max_length=80), BeforeValidator(_refuse_ipv6_pool)]
Pools = Annotated[tuple[_PoolText, ...], Field(max_length=16), BeforeValidator(_listed)]
#: What a security group's rule may be about.
Protocol = Annotated[Literal["tcp", "udp", "icmp"], BeforeValidator(_refuse_icmpv6)]


class RouteForm(Form):
    """A static route."""

    destination: Cidr = Field(
        title="To", description="The network that it leads to, such as `10.1.0.0/16`."
    )
    nexthop: Address = Field(title="By", description="The address of whoever forwards there.")

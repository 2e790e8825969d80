"""What dnsmasq is told: a subnet's configuration, and a port's reservation and names.

As Neutron's DHCP agent writes it: `static` ranges, so that only ports of ours get an
address; the classless routes of RFC 3442 (option 121), which must repeat the default route;
the MTU (option 26), for a guest left at 1500 on a tunnel loses large packets silently.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

from blocks import marks
from blocks.errors import InvalidRequest
from blocks.resources import Network, Port, Subnet

#: Where guests ask for metadata (and what the DHCP namespace answers to).
METADATA_ADDRESS = "169.254.169.254"
#: The domain of the network's own names (RFC 9476 and ICANN keep `internal` for this).
DOMAIN = "fifty.internal"
#: RFC 3442's option, and the one that Windows asked for before it learned of that.
_CLASSLESS_ROUTES = ("option:classless-static-route", "249")

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def configuration(directory: Path, network: Network, subnet: Subnet, port: Port) -> str:
    """The configuration for dnsmasq(8): addresses and paths of ours, nothing else.

    Args:
        directory: Where its files are: pid, log, leases, hosts, names.
        network: For its MTU.
        subnet: What is served.
        port: The DHCP port: its leg is listened on.
    """
    cidr = subnet.cidr
    lines = [
        f"interface={marks.dhcp_leg_name(port.id)}",
        "except-interface=lo",
        "bind-dynamic",
        "no-resolv",
        "no-hosts",
        "bogus-priv",
        f"domain={DOMAIN}",
        f"local=/{DOMAIN}/",
        f"pid-file={directory / 'dnsmasq.pid'}",
        f"log-facility={directory / 'dnsmasq.log'}",
        "quiet-dhcp",
        f"user={_user_for(directory)}",
        f"hostsdir={directory / 'names'}",
        f"dhcp-hostsdir={directory / 'hosts'}",
        f"dhcp-leasefile={directory / 'leases'}",
        f"dhcp-lease-max={min(cidr.num_addresses, 1 << 16)}",
        "dhcp-authoritative",
        f"dhcp-range={cidr.network_address},static,{cidr.netmask},{subnet.lease_s}",
        *_options(network, subnet, subnet.dhcp_address or port.addresses[0].address),
    ]
    return "\n".join(lines) + "\n"


def _options(network: Network, subnet: Subnet, server: IPv4Address) -> Iterator[str]:
    # Without a value: dnsmasq would name itself as the router.
    yield f"dhcp-option=option:router{f',{subnet.gateway}' if subnet.gateway else ''}"
    names = ",".join(str(address) for address in subnet.dns or (server,))
    yield f"dhcp-option=option:dns-server,{names}"
    routes = ",".join(f"{to},{via}" for to, via in classless_routes(subnet, server))
    for option in _CLASSLESS_ROUTES:
        yield f"dhcp-option={option},{routes}"
    # Also to those who do not ask for it: it is no less true for them.
    yield f"dhcp-option-force=option:mtu,{network.mtu}"


def classless_routes(subnet: Subnet, server: IPv4Address) -> list[tuple[str, IPv4Address]]:
    """The routes that DHCP tells: metadata's, the subnet's own, and the default route last.

    Who takes option 121 does not look at the router option (RFC 3442): the default route is
    among them therefore. A host route of the subnet's own goes before ours to the same place.
    """
    routes: dict[str, IPv4Address] = {f"{METADATA_ADDRESS}/32": server}
    if subnet.gateway:
        routes["0.0.0.0/0"] = subnet.gateway
    routes |= {str(route.destination): route.nexthop for route in subnet.host_routes}
    return sorted(routes.items(), key=lambda route: route[0] == "0.0.0.0/0")


def reservation_of(port: Port, host_name: str, address: IPv4Address) -> tuple[str, str]:
    """A port's lines for dnsmasq: its reservation, and its names in DNS.

    Raises:
        InvalidRequest: The port has no MAC address yet, or its name is no host name.
    """
    if port.mac is None:
        raise InvalidRequest(f"the port {port.id} has no MAC address yet")
    if host_name and not _LABEL.fullmatch(host_name):
        raise InvalidRequest(f"{host_name!r} is no host name (RFC 1123)")
    name = host_name or "host-" + str(address).replace(".", "-")
    return f"{port.mac},{address},{name}\n", f"{address} {name}.{DOMAIN} {name}\n"


def _user_for(directory: Path) -> str:
    """Whom dnsmasq runs as: `nobody` where that user can reach its files, else root.

    FIFTY_HOME and what is above it decide: mode 0711 is enough.
    """
    searchable = all(parent.stat().st_mode & 0o001 for parent in directory.parents)
    return "nobody" if searchable else "root"

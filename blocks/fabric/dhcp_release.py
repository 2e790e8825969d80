"""Ends a DHCP lease as its client would: with a DHCPRELEASE (RFC 2131) to the server.

What dnsmasq's contributed `dhcp_release` does, which Neutron runs: the packet is sent
inside the server's namespace with the socket bound to the server's own leg, so that the
server sees it coming from there.
"""

from __future__ import annotations

import secrets
import socket
import struct
from ipaddress import IPv4Address

from pyroute2 import IPRoute

from blocks.fabric import legs, namespaces

_REQUEST, _ETHERNET, _RELEASE = 1, 1, 7
_MAGIC = bytes((99, 130, 83, 99))
_SERVER_PORT = 67
_OPTION_TYPE, _OPTION_SERVER, _OPTION_END = 53, 54, 255


def release(namespace: str, address: IPv4Address, mac: str) -> str | None:
    """Give an address back in the name of the client that leased it.

    Args:
        namespace: The DHCP namespace.
        address: The leased address.
        mac: The client's MAC address.

    Returns:
        The leg on which it was sent; None where no leg leads to the address.
    """

    def send() -> str | None:
        with IPRoute() as ipr:
            found = legs.towards(ipr, address)
        if found is None:
            return None
        leg, server = found
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, leg.encode())
            udp.sendto(packet(address, mac, server), (str(server), _SERVER_PORT))
        return leg

    return namespaces.run_in(namespace, send)


def packet(address: IPv4Address, mac: str, server: IPv4Address) -> bytes:
    """The DHCPRELEASE of a client: RFC 2131, table 5."""
    hardware = bytes.fromhex(mac.replace(":", ""))
    fixed = struct.pack(
        "!BBBBIHH4s4s4s4s16s64s128s",
        *(_REQUEST, _ETHERNET, len(hardware), 0),
        *(secrets.randbits(32), 0, 0),
        *(address.packed, bytes(4), bytes(4), bytes(4)),
        *(hardware, b"", b""),
    )
    options = bytes((_OPTION_TYPE, 1, _RELEASE, _OPTION_SERVER, 4)) + server.packed
    return fixed + _MAGIC + options + bytes((_OPTION_END,))

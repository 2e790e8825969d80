"""Open connections as the kernel tracks them (conntrack(8)): which there are, and their end."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from ipaddress import IPv4Address
from pathlib import Path
from typing import NamedTuple

from pyroute2 import NFCTSocket
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple

from blocks import commands

ICMP, TCP, UDP = 1, 6, 17
_NO_ENTRY = 2
_COUNT = Path("/proc/sys/net/netfilter/nf_conntrack_count")
_TOLD = 20
# Each comes twice, as the first packet has it and as the answer does.
_ENDS = re.compile(r"src=(\S+) dst=(\S+)")
_PORTS = re.compile(r"sport=(\d+) dport=(\d+)")
_ICMP = re.compile(r"type=(\d+) code=(\d+) id=(\d+)")


class Connection(NamedTuple):
    """A connection, by its first packet and by what the answer to that looks like.

    Attributes:
        protocol: The number in the IPv4 header.
        reply_source: Who answers: not `destination` where that was translated.
        reply_destination: To whom: not `source` where that was translated.
        ports: Source and destination port of TCP and UDP.
        icmp: Type, code and id of ICMP.
    """

    protocol: int
    source: IPv4Address
    destination: IPv4Address
    reply_source: IPv4Address
    reply_destination: IPv4Address
    ports: tuple[int, int] | None = None
    icmp: tuple[int, int, int] | None = None


def tracked(zone: int, addresses: Container[IPv4Address] | None = None) -> list[Connection]:
    """The IPv4 connections of a zone, in the namespace of the calling thread.

    Args:
        zone: Its conntrack zone.
        addresses: Only those that one of these began, or that were begun with one.
    """
    if not _some():
        return []
    # 1: there is none.
    done = commands.run("conntrack", "-L", "-f", "ipv4", "-w", str(zone), ok_codes=(0, 1))
    found = (parsed(line) for line in done.stdout.splitlines())
    return [
        each
        for each in found
        if each and (addresses is None or each.source in addresses or each.destination in addresses)
    ]


def parsed(line: str) -> Connection | None:
    """A line of `conntrack -L`; None where it is none of a connection."""
    head, ends = line.split(maxsplit=2)[:2], _ENDS.findall(line)
    if len(head) != 2 or not head[1].isdigit() or len(ends) != 2:
        return None
    (source, destination), (reply_source, reply_destination) = ends
    protocol = int(head[1])
    ports, icmp = _PORTS.search(line), _ICMP.search(line)
    return Connection(
        protocol,
        IPv4Address(source),
        IPv4Address(destination),
        IPv4Address(reply_source),
        IPv4Address(reply_destination),
        ports=(int(ports[1]), int(ports[2])) if ports and protocol in (TCP, UDP) else None,
        icmp=(int(icmp[1]), int(icmp[2]), int(icmp[3])) if icmp and protocol == ICMP else None,
    )


def cut(zone: int, connections: Iterable[Connection]) -> int:
    """Forget connections, in the namespace of the calling thread; already gone is fine.

    One by one, by netlink: conntrack(8) reads the kernel's whole table for each, and a
    guest may have thousands of them. Only what is neither TCP, UDP nor ICMP is left to it.

    Returns:
        How many there were to forget.
    """
    chosen = set(connections)
    named = {each for each in chosen if each.ports or each.icmp}
    others = {(each.protocol, each.source, each.destination) for each in chosen - named}
    if named:
        with NFCTSocket() as netlink:
            for connection in named:
                _delete(netlink, zone, connection)
    for protocol, source, destination in others:
        ends = ["--orig-src", str(source), "--orig-dst", str(destination)]
        words = ["conntrack", "-D", "-w", str(zone), "-p", str(protocol), *ends]
        # 1: there was none.
        commands.run(*words, ok_codes=(0, 1))
    return len(named) + len(others)


def ends(connections: Iterable[Connection]) -> list[tuple[str, str]]:
    """Between whom connections are, for the report: the first few, each pair once."""
    pairs = {(each.source, each.destination) for each in connections}
    return [(str(source), str(destination)) for source, destination in sorted(pairs)[:_TOLD]]


def cut_address(zone: int, address: str) -> None:
    """Forget all connections of an address (conntrack(8))."""
    for side in ("--orig-src", "--orig-dst"):
        # 1: there was none.
        commands.run("conntrack", "-D", "-w", str(zone), side, address, ok_codes=(0, 1))


def _some() -> bool:
    """Whether the namespace of the calling thread has connections at all: a new router has none."""
    return _COUNT.exists() and _COUNT.read_text().strip() != "0"


def _delete(netlink: NFCTSocket, zone: int, connection: Connection) -> None:
    ends: dict[str, object] = {
        "saddr": str(connection.source),
        "daddr": str(connection.destination),
        "proto": connection.protocol,
    }
    if connection.ports:
        ends["sport"], ends["dport"] = connection.ports
    if connection.icmp:
        ends["icmp_type"], ends["icmp_code"], ends["icmp_id"] = connection.icmp
    try:
        netlink.entry("del", tuple_orig=NFCTAttrTuple(**ends), zone=zone)
    except NetlinkError as error:
        if error.code != _NO_ENTRY:
            raise

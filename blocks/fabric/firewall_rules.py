"""What a port's chains say: pure data, from a binding to the rules of nftables.

Each rule carries a comment: the rule in words and a digest of its statements. It is what
a person reads in `nft list ruleset`, and how the rules read back from the kernel are
compared with those that should be there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from ipaddress import IPv4Network, collapse_addresses
from typing import NamedTuple

from blocks.errors import InvalidRequest
from blocks.fabric import nft
from blocks.fabric.nft import ACCEPT, DROP, Json
from blocks.resources import FirewallRule, Port, PortBinding

#: Where packets go that a port's rules let pass.
PASS = "pass"  # noqa: S105 - a chain, not a password

_CLIENT, _SERVER = 68, 67
_ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - the source of a host that has no address yet
_EVERYONE = "255.255.255.255"
#: Up to here a rule of its own for each remote; beyond, a set. A set of its own costs
#: every later transaction a look at it (libnftables reads all sets before each).
_FEW_REMOTES = 4
#: fin, syn, rst and ack of TCP's flags, and syn alone, which begins a connection (RFC 9293).
_FLAGS, _SYN = 0x17, 0x02
# A connection that was cut must not come back by a packet in the middle of it, which the
# kernel would take for a new connection, and one in the other direction at that.
_TCP_UNDER_WAY = (nft.match({"&": [nft.field("tcp", "flags"), _FLAGS]}, _SYN, "!="),)


class Rule(NamedTuple):
    """A rule: its statements, and what it is in words."""

    statements: tuple[Json, ...]
    words: str

    @property
    def comment(self) -> str:
        """The words, and a digest of the statements."""
        text = json.dumps(self.statements, sort_keys=True)
        return f"{self.words[:100]} #{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def spoofing(port: Port) -> list[Rule]:
    """What may leave a port at all: ARP and IPv4 with its own addresses (Neutron's port security).

    Everything else goes nowhere: other EtherTypes (VLAN tags, IPv6 with its router
    advertisements), other people's MAC and IP addresses, ARP that claims them, DHCP
    servers. An address of 0.0.0.0 is for asking: in ARP probes (RFC 5227), and by a
    DHCP client.

    Raises:
        InvalidRequest: The port has no MAC address yet.
    """
    if port.mac is None:
        raise InvalidRequest(f"the port {port.id} has no MAC address yet")
    arp, source = nft.field("arp", "saddr ip"), nft.field("ip", "saddr")
    own = [str(fixed.address) for fixed in port.addresses]
    wrong_mac = nft.match(nft.field("ether", "saddr"), port.mac, "!=")
    wrong_arp_mac = nft.match(nft.field("arp", "saddr ether"), port.mac, "!=")
    request = (
        nft.match(source, _ANY_ADDRESS),
        nft.match(nft.field("ip", "daddr"), _EVERYONE),
        nft.match(nft.field("udp", "sport"), _CLIENT),
        nft.match(nft.field("udp", "dport"), _SERVER),
    )
    server = nft.match(nft.field("udp", "sport"), _SERVER)
    return [
        Rule((wrong_mac, DROP), "another's MAC address"),
        Rule((wrong_arp_mac, DROP), "ARP with another's MAC address"),
        *(Rule((nft.match(arp, ip), ACCEPT), f"ARP of {ip}") for ip in (_ANY_ADDRESS, *own)),
        Rule((*request, ACCEPT), "DHCP request"),
        Rule((server, DROP), "DHCP server"),
        *(Rule((nft.match(source, ip), ACCEPT), f"IPv4 from {ip}") for ip in own),
        Rule((DROP,), "all else: other addresses, IPv6, VLAN tags"),
    ]


def without_security() -> list[list[Rule]]:
    """The chains of a port whose port security an admin has turned off.

    Whoever it says it is, and to and from anybody, in ARP and IPv4; what nobody lets pass
    between guests and host, and other EtherTypes to guests, it does not get either.
    """
    words = "port security is off"
    passing = [Rule((nft.goto(PASS),), words)]
    return [[Rule((ACCEPT,), words)], passing, passing]


def directed(binding: PortBinding, direction: str) -> list[Rule]:
    """What the security groups let a port send (`egress`) or receive (`ingress`).

    Replies to what was let pass are let pass; DHCP with our server always is; what no
    rule lets pass is dropped.
    """
    passing = nft.goto(PASS)
    sport, dport = (_CLIENT, _SERVER) if direction == "egress" else (_SERVER, _CLIENT)
    dhcp = (
        nft.match(nft.field("udp", "sport"), sport),
        nft.match(nft.field("udp", "dport"), dport),
    )
    rules = [
        Rule((nft.state("established", "related"), passing), "established"),
        Rule((nft.state("invalid"), DROP), "invalid"),
        Rule((*_TCP_UNDER_WAY, DROP), "TCP that does not begin here"),
        Rule((*dhcp, passing), "DHCP"),
    ]
    for rule in binding.rules:
        if rule.direction == direction:
            rules += _allowed(rule)
    return [*rules, Rule((DROP,), f"no {direction} rule lets it pass")]


def _allowed(rule: FirewallRule) -> list[Rule]:
    base, words = _protocol(rule)
    side = "saddr" if rule.direction == "ingress" else "daddr"
    far = "from" if rule.direction == "ingress" else "to"
    if rule.remotes is None:
        return [Rule((*base, nft.goto(PASS)), f"{words} {far} anyone")]
    remotes = list(collapse_addresses(rule.remotes))
    if len(remotes) <= _FEW_REMOTES:
        return [
            Rule((*base, *_remote(side, remote), nft.goto(PASS)), f"{words} {far} {remote}")
            for remote in remotes
        ]
    members = {"set": [_network(remote) for remote in remotes]}
    condition = nft.match(nft.field("ip", side), members)
    return [Rule((*base, condition, nft.goto(PASS)), f"{words} {far} {len(remotes)} remotes")]


def _protocol(rule: FirewallRule) -> tuple[tuple[Json, ...], str]:
    if rule.protocol is None:
        return (), "anything"
    if rule.protocol == "icmp":
        statements = [nft.match(nft.meta("l4proto"), "icmp")]
        named = (("type", rule.port_min), ("code", rule.port_max))
        chosen = [(name, value) for name, value in named if value is not None]
        statements += [nft.match(nft.field("icmp", name), value) for name, value in chosen]
        return tuple(statements), " ".join(["icmp", *(f"{n} {v}" for n, v in chosen)])
    if rule.port_min is None and rule.port_max is None:
        return (nft.match(nft.meta("l4proto"), rule.protocol),), rule.protocol
    first = rule.port_min if rule.port_min is not None else 0
    last = rule.port_max if rule.port_max is not None else first
    ports: Json | int = first if first == last else {"range": [first, last]}
    words = f"{rule.protocol} {first if first == last else f'{first}-{last}'}"
    return (nft.match(nft.field(rule.protocol, "dport"), ports),), words


def _remote(side: str, remote: IPv4Network) -> Sequence[Json]:
    if remote.prefixlen == 0:
        return ()
    return (nft.match(nft.field("ip", side), _network(remote)),)


def _network(remote: IPv4Network) -> str | Json:
    if remote.prefixlen == remote.max_prefixlen:
        return str(remote.network_address)
    return {"prefix": {"addr": str(remote.network_address), "len": remote.prefixlen}}

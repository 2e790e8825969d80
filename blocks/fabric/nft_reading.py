"""What of nftables is in the kernel, asked of the kernel itself: one chain, one element.

libnftables reads all chains, maps and elements of a table before it lists any of them. So
with it a port would cost the more, the more ports there are on the host. These questions
are netlink's own (linux/netfilter/nf_tables.h), and their answers are as long as what was
asked for.
"""

from __future__ import annotations

import socket
import struct

from blocks.errors import HostFault
from blocks.fabric.nft import Json

_NETLINK_NETFILTER, _NFTABLES = 12, 10 << 8
_GET_CHAIN, _GET_RULE, _GET_ELEMENT = 4, 7, 13
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_ERROR, _DONE = 2, 3
_INTERRUPTED = 0x10
_NO_ENTRY = 2
_NESTED, _KIND = 0x8000, 0x3FFF
_FAMILIES = {"inet": 1, "ip": 2, "bridge": 7}
# Attributes of rules (and of chains, and of lists of elements).
_TABLE, _CHAIN, _USERDATA = 1, 2, 7
_CHAIN_NAME = 3
_SET, _ELEMENTS, _ELEMENT = 2, 3, 1
_KEY, _DATA, _VALUE, _VERDICT, _TARGET = 1, 2, 1, 2, 2
_COMMENT = 0
_INTERFACE_NAME = 16


def comments(table: Json, chain: str) -> list[str] | None:
    """The comments of a chain's rules, in their order; None where there is no such chain.

    Raises:
        HostFault: The kernel refused to answer.
    """
    of_rules = _text(_TABLE, table["table"]) + _text(_CHAIN, chain)
    rules = _asked(table, _GET_RULE, _DUMP, of_rules)
    found = [_comment(_attributes(rule).get(_USERDATA, b"")) for rule in rules or ()]
    if found:
        return found
    named = _text(_TABLE, table["table"]) + _text(_CHAIN_NAME, chain)
    return None if _asked(table, _GET_CHAIN, _ACK, named) is None else []


def holds(table: Json, name: str, member: object) -> bool:
    """Whether a map or set has an element.

    Args:
        table: Its table.
        name: Its name.
        member: An interface's name or a mark; of a map with what it leads to: a mark, or
            `{"goto": {"target": CHAIN}}`.

    Raises:
        HostFault: The kernel refused to answer.
    """
    key, leads_to = member if isinstance(member, list) else (member, None)
    element = _nested(_ELEMENT, _nested(_KEY, _attribute(_VALUE, _encoded(key))))
    named = _text(_TABLE, table["table"]) + _text(_SET, name)
    answers = _asked(table, _GET_ELEMENT, _ACK, named + _nested(_ELEMENTS, element))
    if not answers:
        return False
    there = _attributes(_attributes(_attributes(answers[0])[_ELEMENTS])[_ELEMENT])
    if leads_to is None:
        return True
    data = _attributes(there[_DATA])
    if isinstance(leads_to, dict):
        target = _attributes(data.get(_VERDICT, b"")).get(_TARGET, b"")
        return target == f"{leads_to['goto']['target']}\0".encode()
    return data.get(_VALUE) == _encoded(leads_to)


def _asked(table: Json, question: int, flags: int, attributes: bytes) -> list[bytes] | None:
    """The answers to a question, without their heads; None where there is nothing such."""
    body = struct.pack("!BBH", _FAMILIES[table["family"]], 0, 0) + attributes
    head = struct.pack("=IHHII", 16 + len(body), _NFTABLES | question, _REQUEST | flags, 1, 0)
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_NETLINK, kind, _NETLINK_NETFILTER) as netlink:
        netlink.bind((0, 0))
        while True:
            netlink.send(head + body)
            code, answers, interrupted = _answers(netlink)
            if code in (0, _NO_ENTRY) and not interrupted:
                return None if code else answers
            if code not in (0, _NO_ENTRY):
                raise HostFault(f"the kernel did not tell of its firewall: error {code}")


def _answers(netlink: socket.socket) -> tuple[int, list[bytes], bool]:
    """Error code (0: none), answers, and whether somebody changed the firewall meanwhile."""
    answers: list[bytes] = []
    interrupted = False
    while True:
        data = netlink.recv(1 << 17)
        at = 0
        while at < len(data):
            length, kind, flags = struct.unpack_from("=IHH", data, at)
            content = data[at + 16 : at + length]
            interrupted = interrupted or bool(flags & _INTERRUPTED)
            if kind in (_ERROR, _DONE):
                code = struct.unpack_from("=i", content)[0] if len(content) >= 4 else 0
                return -code, answers, interrupted
            answers.append(content[4:])
            at += (length + 3) & ~3


def _attributes(data: bytes) -> dict[int, bytes]:
    """The attributes by their kind; of several of one kind, the last."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        found[kind & _KIND] = data[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def _comment(userdata: bytes) -> str:
    """The comment among what nft(8) has left with a rule: kind, length, value."""
    at = 0
    while at + 2 <= len(userdata):
        kind, length = userdata[at], userdata[at + 1]
        if kind == _COMMENT:
            return userdata[at + 2 : at + 2 + length].rstrip(b"\0").decode()
        at += 2 + length
    return ""


def _encoded(value: object) -> bytes:
    if isinstance(value, int):
        return struct.pack("=I", value)
    return str(value).encode().ljust(_INTERFACE_NAME, b"\0")


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _nested(kind: int, content: bytes) -> bytes:
    return _attribute(kind | _NESTED, content)


def _attribute(kind: int, value: bytes) -> bytes:
    attribute = struct.pack("=HH", 4 + len(value), kind) + value
    return attribute + b"\0" * (-len(attribute) % 4)

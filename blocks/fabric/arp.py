"""ARP spoken by hand (RFC 826), from inside a namespace: asking for, and announcing, an address."""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections.abc import Iterable
from ipaddress import IPv4Address

from blocks.fabric import namespaces

_ETH_P_ARP = 0x0806
_ETHERNET, _IPV4, _REQUEST, _REPLY = 1, 0x0800, 1, 2
_BROADCAST = b"\xff" * 6
_HEADER, _BODY = "!6s6sH", "!HHBBH6s4s6s4s"
#: How often the question is asked again while the answer is awaited.
_AGAIN_S = 0.25


def ask(
    namespace: str, leg: str, own: IPv4Address, address: IPv4Address, timeout_s: float
) -> str | None:
    """Ask who has an address, as arping(8) does.

    Args:
        namespace: Where the question is asked.
        leg: The link on which.
        own: The address of that link, to which the answer is sent.
        address: The address that is asked for.
        timeout_s: How long to wait for the answer, in seconds.

    Returns:
        The MAC address of who answered first; None if nobody did.
    """

    def inside() -> str | None:
        with _socket(leg) as raw:
            mac = raw.getsockname()[4]
            question = _frame(mac, _REQUEST, own, bytes(6), address)
            end = time.monotonic() + timeout_s
            while (left := end - time.monotonic()) > 0:
                raw.send(question)
                answer = _answer(raw, address, min(left, _AGAIN_S))
                if answer is not None:
                    return answer
            return None

    return namespaces.run_in(namespace, inside)


def announce(namespace: str, leg: str, addresses: Iterable[IPv4Address]) -> None:
    """Tell everybody on a link that addresses are here now (RFC 5227, section 3)."""

    def inside() -> None:
        # Protocol 0: it hears nothing.
        raw = _socket(leg, 0)
        try:
            mac = raw.getsockname()[4]
            for address in addresses:
                for frame in (
                    _frame(mac, _REQUEST, address, bytes(6), address),
                    _frame(mac, _REPLY, address, mac, address),
                ):
                    raw.sendto(frame, (leg, _ETH_P_ARP))
        finally:
            # By a thread that nobody waits for: to close a packet socket takes the kernel
            # until no packet is under way on any processor, some 15 ms.
            threading.Thread(target=raw.close, name="fifty-arp", daemon=True).start()

    namespaces.run_in(namespace, inside)


def _socket(leg: str, protocol: int = _ETH_P_ARP) -> socket.socket:
    # Of no protocol until it is bound: to take one from it takes the kernel 15 ms more.
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    try:
        raw.bind((leg, protocol))
    except OSError:
        raw.close()
        raise
    return raw


def _frame(mac: bytes, kind: int, own: IPv4Address, target: bytes, asked: IPv4Address) -> bytes:
    body = (_ETHERNET, _IPV4, 6, 4, kind, mac, own.packed, target, asked.packed)
    return struct.pack(_HEADER, _BROADCAST, mac, _ETH_P_ARP) + struct.pack(_BODY, *body)


def _answer(raw: socket.socket, address: IPv4Address, wait_s: float) -> str | None:
    end = time.monotonic() + wait_s
    while (left := end - time.monotonic()) > 0 and select.select([raw], [], [], left)[0]:
        frame = raw.recv(2048)
        if len(frame) < struct.calcsize(_HEADER) + struct.calcsize(_BODY):
            continue
        body = struct.unpack_from(_BODY, frame, struct.calcsize(_HEADER))
        kind, sender_mac, sender_ip = body[4], body[5], body[6]
        if kind == _REPLY and sender_ip == address.packed:
            return ":".join(f"{byte:02x}" for byte in sender_mac)
    return None

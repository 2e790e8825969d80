"""Asking the kernel what it can do, without making anything; modules are loaded if need be."""

from __future__ import annotations

import json
import shutil
import socket
import struct
from functools import cache
from pathlib import Path
from typing import Any

from blocks import commands
from blocks.errors import HostFault

_RTM_GETLINK = 18
_DUMP_REQUEST = 0x301
_DUMP_FILTERED = 0x20
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_IFLA_LINKINFO, _IFLA_INFO_KIND, _NESTED = 18, 1, 0x8000


@cache
def knows_link_kind(kind: str) -> bool:
    """Whether the kernel can make links of this kind (`vxlan`, `bridge`, `gretap`, ...).

    A dump of the links is asked for, filtered by the kind. A kernel that knows the kind
    filters; one that does not ignores the filter and shows every link. The question loads
    no module: modprobe(8) does, as the kernel would have it do for `ip link add`.

    Raises:
        HostFault: The kernel refused the question.
    """
    return _filters_by(kind) or (_loads(f"rtnl-link-{kind}") and _filters_by(kind))


def _filters_by(kind: str) -> bool:
    name = _attribute(_IFLA_INFO_KIND, kind.encode() + b"\0")
    body = struct.pack("BxHiII", 0, 0, 0, 0, 0) + _attribute(_IFLA_LINKINFO | _NESTED, name)
    header = struct.pack("IHHII", 16 + len(body), _RTM_GETLINK, _DUMP_REQUEST, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as netlink:
        netlink.bind((0, 0))
        netlink.send(header + body)
        return _was_filtered(netlink)


@cache
def tracks_connections_in_bridges() -> bool:
    """Whether the kernel has nf_conntrack_bridge and nft_meta_bridge; it loads them for it.

    nft(8) is asked to check, not to load, a rule with `ct state` and `meta ibrname` in a
    table of family bridge. (A kernel without them answers EPROTO or ENOENT.)
    """
    table = {"family": "bridge", "table": "fifty_probe"}
    state = {"left": {"ct": {"key": "state"}}, "op": "in", "right": ["established", "related"]}
    bridge = {"left": {"meta": {"key": "ibrname"}}, "op": "==", "right": "lo"}
    rule = [{"match": bridge}, {"match": state}, {"accept": None}]
    hook = {"type": "filter", "hook": "forward", "prio": 0, "policy": "accept"}
    check: list[dict[str, Any]] = [
        {"add": {"table": {"family": "bridge", "name": "fifty_probe"}}},
        {"add": {"chain": {**table, "name": "probe", **hook}}},
        {"add": {"rule": {**table, "chain": "probe", "expr": rule}}},
    ]
    document = json.dumps({"nftables": check})
    done = commands.run("nft", "-c", "-j", "-f", "-", stdin=document, ok_codes=(0, 1))
    return done.returncode == 0


def calls_iptables() -> bool:
    """Whether br_netfilter shows the frames of all bridges to the inet tables of nftables."""
    switch = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    return switch.exists() and switch.read_text().strip() == "1"


def has_br_netfilter() -> bool:
    """Whether br_netfilter is there, so that a bridge's `nf_call_iptables` has an effect."""
    return Path("/proc/sys/net/bridge").is_dir()


def _loads(module: str) -> bool:
    """Whether there is such a module; it is loaded then."""
    if shutil.which("modprobe") is None:
        return False
    return commands.run("modprobe", "-q", module, ok_codes=(0, 1)).returncode == 0


def _attribute(kind: int, value: bytes) -> bytes:
    attribute = struct.pack("HH", 4 + len(value), kind) + value
    return attribute + b"\0" * (-len(attribute) % 4)


def _was_filtered(netlink: socket.socket) -> bool:
    links = 0
    filtered = False
    while True:
        data = netlink.recv(1 << 17)
        at = 0
        while at < len(data):
            length, kind, flags, _, _ = struct.unpack_from("IHHII", data, at)
            filtered = filtered or bool(flags & _DUMP_FILTERED)
            if kind == _NLMSG_DONE:
                return filtered or links == 0
            if kind == _NLMSG_ERROR:
                code = struct.unpack_from("i", data, at + 16)[0]
                raise HostFault(f"the kernel refused to list its links: error {-code}")
            links += 1
            at += (length + 3) & ~3

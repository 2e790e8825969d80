"""Links: bridges, taps and veth pairs, made so that making them again changes nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink import nlmsg
from pyroute2.netlink.exceptions import NetlinkError

from blocks import changes
from blocks.errors import Conflict, HostFault, Transient
from blocks.fabric import kernel, namespaces

#: errno values in the answers of netlink.
EXISTS, _NO_DEVICE, _BUSY = 17, 19, 16
_FLAG_UP = 1

T = TypeVar("T")


@dataclass(frozen=True)
class Link:
    """A link as the kernel shows it.

    Attributes:
        alias: Our mark, or another's, or none.
        master: The index of the bridge that it is enslaved to.
        isolated: Whether that bridge hands nothing on between it and other isolated ports.
        details: The attributes of its kind (IFLA_INFO_DATA).
    """

    index: int
    name: str
    alias: str | None
    kind: str | None
    mtu: int
    mac: str
    master: int | None
    up: bool
    carrier: bool
    isolated: bool = False
    details: dict[str, Any] = field(default_factory=dict, compare=False)


def with_links(namespace: str | None, function: Callable[[IPRoute], T]) -> T:
    """Run a function with a netlink connection that lives as long as the call.

    Args:
        namespace: Where; None means the namespace that we are in.
        function: Gets the connection.

    Raises:
        HostFault: The kernel refused what the function asked for.
    """

    def inside() -> T:
        with IPRoute() as ipr:
            return function(ipr)

    try:
        return namespaces.run_in(namespace, inside)
    except NetlinkError as error:
        where = f" in {namespace}" if namespace else ""
        raise HostFault(f"the kernel refused a change of the links{where}: {error}") from error


def find(ipr: IPRoute, name: str) -> Link | None:
    """The link of that name, or None."""
    try:
        return _link(ipr.link("get", ifname=name)[0])
    except NetlinkError as error:
        if error.code == _NO_DEVICE:
            return None
        raise


def all_links(ipr: IPRoute) -> list[Link]:
    """Every link of the namespace."""
    return [_link(message) for message in ipr.get_links()]


def need(ipr: IPRoute, name: str) -> Link:
    """The link of that name.

    Raises:
        Transient: There is none (yet).
    """
    link = find(ipr, name)
    if link is None:
        raise Transient(f"there is no link {name}", hint="run the step that makes it again")
    return link


def ours(link: Link, alias: str) -> Link:
    """The link itself, if it carries this mark, or none yet as we were stopped before it.

    Raises:
        Conflict: It is somebody else's.
    """
    if link.alias not in (alias, None):
        raise Conflict(
            f"the link {link.name} is not ours: its alias is {link.alias!r}, not {alias!r}",
            hint=f"find out whose it is; `ip link delete {link.name}` removes it",
        )
    return link


def create(ipr: IPRoute, name: str, alias: str, command: list[str], **attributes: object) -> Link:
    """Make a link, or take the one that is there, and mark it.

    Args:
        ipr: The connection.
        name: Its name.
        alias: Its mark. The kernel takes no alias at creation, so that a link of our
            name without an alias is one whose maker was stopped: it is taken.
        command: What a person would have typed.
        attributes: Of the new link, as pyroute2 takes them, `kind` among them.

    Raises:
        Conflict: The name belongs to somebody else's link.
    """
    link = find(ipr, name)
    if link is None:
        ipr.link("add", ifname=name, **attributes)
        changes.record(f"Created the {attributes['kind']} device {name}", command)
        link = need(ipr, name)
    if ours(link, alias).alias != alias:
        ipr.link("set", index=link.index, ifalias=alias)
        changes.record(f"Marked {name} as ours", ["ip", "link", "set", name, "alias", alias])
    return link


def delete(ipr: IPRoute, name: str, alias: str) -> bool:
    """Delete a link of ours; already gone is fine.

    Returns:
        Whether there was one.

    Raises:
        Conflict: The name belongs to somebody else's link.
    """
    link = find(ipr, name)
    if link is None:
        return False
    try:
        ipr.link("del", index=ours(link, alias).index)
    except NetlinkError as error:
        if error.code != _NO_DEVICE:
            raise
        return False
    changes.record(f"Deleted the link {name}", ["ip", "link", "delete", name])
    return True


def settle(
    ipr: IPRoute,
    link: Link,
    *,
    mtu: int,
    bridge: Link | None = None,
    isolated: bool = False,
    namespace: str | None = None,
) -> None:
    """Give a link its MTU, its bridge, and bring it up, as far as it is not so already.

    Args:
        ipr: The connection.
        link: The link.
        mtu: Its MTU.
        bridge: The bridge that it is to be in.
        isolated: Whether it is kept from all other isolated ports of the bridge.
        namespace: Where it is, for the record.
    """
    wanted: dict[str, Any] = {}
    words: list[str] = []
    if link.mtu != mtu:
        wanted["mtu"] = mtu
        words += ["mtu", str(mtu)]
    if bridge is not None and link.master != bridge.index:
        wanted["master"] = bridge.index
        words += ["master", bridge.name]
    if not link.up:
        wanted["state"] = "up"
        words += ["up"]
    if wanted:
        ipr.link("set", index=link.index, **wanted)
        where = ["-n", namespace] if namespace else []
        changes.record(
            f"Set {link.name}: {' '.join(words)}", ["ip", *where, "link", "set", link.name, *words]
        )
    # Who comes into a bridge comes without it.
    if isolated and ("master" in wanted or not link.isolated):
        ipr.brport("set", index=link.index, isolated=1)
        command = ["bridge", "link", "set", "dev", link.name, "isolated", "on"]
        changes.record(f"Kept {link.name} from the other isolated ports of its bridge", command)


def ensure_bridge(ipr: IPRoute, name: str, alias: str, mtu: int) -> Link:
    """Make a bridge for guests: no delay, no snooping, no address of the host's.

    Its own MAC address is pinned (derived from the mark), for a bridge otherwise takes
    that of its lowest port and changes it as ports come and go. Where the kernel does not
    track connections in bridges its frames are shown to the inet tables of nftables, by
    the bridge's own `nf_call_iptables`, so that no sysctl is touched that other people's
    bridges listen to; where it does they are not, for other people's inet rules (Docker's)
    would drop them.
    """
    shown = 0 if kernel.tracks_connections_in_bridges() else 1
    link = create(
        ipr,
        name,
        alias,
        [
            *("ip", "link", "add", name, "type", "bridge", "forward_delay", "0"),
            *("mcast_snooping", "0", "nf_call_iptables", str(shown)),
        ],
        kind="bridge",
        address=own_mac(alias),
        br_forward_delay=0,
        br_mcast_snooping=0,
        br_nf_call_iptables=shown,
    )
    if link.details.get("IFLA_BR_NF_CALL_IPTABLES") != shown and kernel.has_br_netfilter():
        ipr.link("set", index=link.index, kind="bridge", br_nf_call_iptables=shown)
        words = ["ip", "link", "set", name, "type", "bridge", "nf_call_iptables", str(shown)]
        changes.record(f"Set nf_call_iptables of {name} to {shown}", words)
    namespaces.without_ipv6(name)
    settle(ipr, link, mtu=mtu)
    return need(ipr, name)


def ensure_tap(ipr: IPRoute, name: str, alias: str, owner_uid: int | None) -> Link:
    """Make a tap device that a given user's process may open.

    Raises:
        Conflict: There is one, but it is somebody else's.
        Transient: It is held open while it was to be made.
    """
    attributes: dict[str, Any] = {"kind": "tuntap", "mode": "tap", "ifr": {"no_pi": 1}}
    words = ["ip", "tuntap", "add", "dev", name, "mode", "tap"]
    if owner_uid is not None:
        attributes["uid"] = owner_uid
        words += ["user", str(owner_uid)]
    try:
        link = create(ipr, name, alias, words, **attributes)
    except OSError as error:
        if error.errno != _BUSY:
            raise
        raise Transient(f"the tap {name} is held by another process") from error
    namespaces.without_ipv6(name)
    return link


def differences(
    link: Link, *, alias: str, mtu: int, master: Link | None = None, isolated: bool = False
) -> list[str]:
    """What of a link's mark, MTU, state, bridge and isolation there is not as it should be."""
    wrong = []
    if link.alias != alias:
        wrong.append(f"{link.name} has the alias {link.alias!r}, not {alias!r}")
    if link.mtu != mtu:
        wrong.append(f"{link.name} has MTU {link.mtu}, not {mtu}")
    if not link.up:
        wrong.append(f"{link.name} is down")
    if master is not None and link.master != master.index:
        wrong.append(f"{link.name} is not in the bridge {master.name}")
    elif isolated and not link.isolated:
        wrong.append(f"{link.name} is not isolated from other such ports of its bridge")
    return wrong


def own_mac(alias: str) -> str:
    """A locally administered MAC address that belongs to a mark."""
    digest = hashlib.sha256(alias.encode()).hexdigest()
    return ":".join(["fe", "16", "3e", digest[0:2], digest[2:4], digest[4:6]])


def _link(message: nlmsg) -> Link:
    details = message.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA")
    return Link(
        index=message["index"],
        name=message.get("ifname"),
        alias=message.get("ifalias"),
        kind=message.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND"),
        mtu=message.get("mtu"),
        mac=message.get("address"),
        master=message.get("master"),
        up=bool(message["flags"] & _FLAG_UP),
        carrier=bool(message.get("carrier")),
        isolated=bool(
            message.get_nested("IFLA_LINKINFO", "IFLA_INFO_SLAVE_DATA", "IFLA_BRPORT_ISOLATED")
        ),
        # Of kinds that pyroute2 does not know (an erspan0 comes with ip_gre) they are text.
        details=dict(details["attrs"]) if isinstance(details, dict) else {},
    )

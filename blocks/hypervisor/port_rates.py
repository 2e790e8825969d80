"""Rates of ports: what a guest may send and receive a second, by the kernel's `tc`.

Libvirt's own `<bandwidth>` wants the queueing discipline sfq and police actions, which
not every kernel has, and a start fails where they are missing. Here a token bucket (tbf)
is enough: on the tap for what goes to the guest, and on an ifb device, to which the tap's
ingress is redirected, for what comes from it. The rate on the tap goes with the tap; the
ifb device is removed when the domain is undefined.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from blocks import changes
from blocks.errors import HostFault, Unsupported
from blocks.fabric import links
from blocks.marks import link_alias, parse_link_alias

#: The kind in our ifb devices' alias; their id is the instance's.
KIND = "rate"
_ROOT = 0xFFFFFFFF
_INGRESS = 0xFFFFFFF1
_INGRESS_HANDLE = 0xFFFF0000
_ETH_P_ALL = 3
_LEAST_BURST = 64 * 1024
_UNKNOWN_KIND = (2, 95)  # ENOENT (no such discipline), EOPNOTSUPP (no such link kind)


def ifb_name(tap: str) -> str:
    """The ifb device of a tap."""
    return f"ifb{tap.removeprefix('tap')}"[:15]


def limit(site: str, instance_id: str, tap: str, kib_s: int) -> bool:
    """Limit a port in both directions; what is so already stays.

    Args:
        site: Our site, for the ifb device's mark.
        instance_id: Whose port it is.
        tap: Its tap device.
        kib_s: KiB a second, for each direction.

    Returns:
        Whether anything changed.

    Raises:
        Unsupported: The kernel lacks tbf, ifb or redirection.
        Transient: There is no such tap.
    """

    def apply(ipr: IPRoute) -> bool:
        if _rates(ipr, tap) == (kib_s, kib_s):
            return False
        try:
            _limit(ipr, site, instance_id, tap, kib_s)
        except NetlinkError as error:
            if error.code in _UNKNOWN_KIND:
                raise Unsupported(
                    "the flavor limits the network's rate, but this kernel lacks one of "
                    f"sch_tbf, sch_ingress, cls_u32, act_mirred, ifb ({error})"
                ) from error
            raise HostFault(f"the kernel refused the rate of {tap}: {error}") from error
        return True

    return links.with_links(None, apply)


def rates(tap: str) -> tuple[int | None, int | None]:
    """What the kernel allows a port, KiB a second: (to the guest, from the guest)."""
    return links.with_links(None, lambda ipr: _rates(ipr, tap))


def forget(site: str, instance_id: str, taps: Sequence[str] = ()) -> None:
    """Remove the rates of an instance's ports; nothing there is fine.

    Args:
        site: Our site.
        instance_id: Whose ports.
        taps: Taps that stay and lose their rate.
    """

    def remove(ipr: IPRoute) -> None:
        for tap in taps:
            link = links.find(ipr, tap)
            if link is not None and _clear(ipr, link.index):
                changes.record(
                    f"Lifted the rate of {tap}", ["tc", "qdisc", "del", "dev", tap, "root"]
                )
        for link in links.all_links(ipr):
            if parse_link_alias(link.alias or "") == (site, KIND, instance_id):
                links.delete(ipr, link.name, link_alias(site, KIND, instance_id))

    links.with_links(None, remove)


def forget_port(site: str, instance_id: str, tap: str) -> None:
    """Remove the rate of one of an instance's ports; nothing there is fine."""
    alias = link_alias(site, KIND, instance_id)

    def remove(ipr: IPRoute) -> None:
        link = links.find(ipr, tap)
        if link is not None and _clear(ipr, link.index):
            changes.record(f"Lifted the rate of {tap}", ["tc", "qdisc", "del", "dev", tap, "root"])
        links.delete(ipr, ifb_name(tap), alias)

    links.with_links(None, remove)


def _limit(ipr: IPRoute, site: str, instance_id: str, tap: str, kib_s: int) -> None:
    to_guest = links.need(ipr, tap)
    name = ifb_name(tap)
    from_guest = links.create(
        ipr,
        name,
        link_alias(site, KIND, instance_id),
        ["ip", "link", "add", name, "type", "ifb"],
        kind="ifb",
    )
    links.settle(ipr, from_guest, mtu=to_guest.mtu)
    for link in (to_guest, from_guest):
        _bucket(ipr, link.index, kib_s)
        changes.record(
            f"Limited {link.name} to {kib_s} KiB a second",
            f"tc qdisc replace dev {link.name} root tbf rate {kib_s * 8 * 1024}bit "
            f"burst {_burst(kib_s)} latency 50ms",
        )
    _redirect(ipr, to_guest.index, from_guest.index)
    changes.record(
        f"Redirected what comes from {tap} through {name}",
        f"tc qdisc add dev {tap} ingress; tc filter add dev {tap} parent ffff: "
        f"u32 match u32 0 0 action mirred egress redirect dev {name}",
    )


def _burst(kib_s: int) -> int:
    """Bytes that may pass at once: 20 ms worth, and never less than a large segment."""
    return max(_LEAST_BURST, kib_s * 1024 // 50)


def _bucket(ipr: IPRoute, index: int, kib_s: int) -> None:
    ipr.tc(
        "replace",
        "tbf",
        index=index,
        handle=0x10000,
        parent=_ROOT,
        rate=kib_s * 1024,
        burst=_burst(kib_s),
        latency="50ms",
    )


def _redirect(ipr: IPRoute, source: int, target: int) -> None:
    for qdisc in ipr.get_qdiscs(source):
        if qdisc["parent"] == _INGRESS:
            ipr.tc("del", index=source, handle=_INGRESS_HANDLE, parent=_INGRESS)
    ipr.tc("add", "ingress", index=source, handle=_INGRESS_HANDLE)
    ipr.tc(
        "add-filter",
        "u32",
        index=source,
        parent=_INGRESS_HANDLE,
        protocol=_ETH_P_ALL,
        prio=1,
        target=0x10000,
        keys=["0x0/0x0+0"],
        action={
            "kind": "mirred",
            "direction": "egress",
            "action": "redirect",
            "ifindex": target,
        },
    )


def _clear(ipr: IPRoute, index: int) -> bool:
    """Remove a tap's bucket and redirection; whether there was one."""
    found = False
    for qdisc in ipr.get_qdiscs(index):
        if qdisc.get_attr("TCA_KIND") == "tbf" or qdisc["parent"] == _INGRESS:
            ipr.tc("del", index=index, handle=qdisc["handle"], parent=qdisc["parent"])
            found = True
    return found


def _rates(ipr: IPRoute, tap: str) -> tuple[int | None, int | None]:
    """(to the guest, from the guest); the second only where the redirection is complete."""
    link, other = links.find(ipr, tap), links.find(ipr, ifb_name(tap))
    if link is None:
        return None, None
    to_guest = _rate(ipr, link.index)
    if other is None or not other.up or not _redirects(ipr, link.index, other.index):
        return to_guest, None
    return to_guest, _rate(ipr, other.index)


def _rate(ipr: IPRoute, index: int) -> int | None:
    for qdisc in ipr.get_qdiscs(index):
        if qdisc.get_attr("TCA_KIND") == "tbf" and qdisc["parent"] == _ROOT:
            return int(qdisc.get_nested("TCA_OPTIONS", "TCA_TBF_PARMS")["rate"]) // 1024
    return None


def _redirects(ipr: IPRoute, source: int, target: int) -> bool:
    if not any(qdisc["parent"] == _INGRESS for qdisc in ipr.get_qdiscs(source)):
        return False
    path = ("TCA_OPTIONS", "TCA_U32_ACT", "TCA_ACT_PRIO_1", "TCA_ACT_OPTIONS")
    for rule in ipr.get_filters(index=source, parent=_INGRESS_HANDLE):
        redirection = rule.get_nested(*path, "TCA_MIRRED_PARMS")
        if redirection is not None and redirection["ifindex"] == target:
            return True
    return False

"""Routers: a namespace with a leg in each network, as Neutron's L3 agent makes them.

Guests that do not take the route to the metadata address from DHCP ask their router for
it. The router sends such packets back into the network they came from, where the DHCP
namespace answers: one rule and one table for each leg (ip-rule(8)), so that networks that
share a router never get each other's metadata.
"""

from __future__ import annotations

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from blocks import changes, marks
from blocks.errors import InvalidRequest
from blocks.fabric import arp, legs, links, namespaces, nft, nft_words
from blocks.fabric.dnsmasq_config import METADATA_ADDRESS
from blocks.fabric.firewall_rules import Rule
from blocks.fabric.legs import Leg
from blocks.fabric.links import with_links
from blocks.fabric.nft import ACCEPT, Json
from blocks.fabric.segments import SegmentDriver
from blocks.fabric.site import Site
from blocks.fabric.tables import Chain, apply_table, table_differences
from blocks.resources import Router, RouterLeg

_SCOPE_LINK = 253
_SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    # A source must be one that its leg leads to (RFC 3704, strict).
    "net/ipv4/conf/all/rp_filter": "1",
    # A packet for the metadata address leaves where it came in; that is no mistake.
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
}


class Routing:
    """The site's routers on this host."""

    def __init__(self, site: Site, segments: SegmentDriver) -> None:
        self._site = site
        self._segments = segments

    def realize(self, router: Router) -> None:
        """Make the router's namespace, with exactly the legs that it is described with.

        Args:
            router: Its legs; the segments of their networks are realized already. Its
                gateway is left as it is.
        """
        namespace = marks.router_namespace(router.id)
        with self._site.locked(router.id):
            namespaces.ensure(namespace, self._site.alias("router", router.id))
            namespaces.run_in(namespace, lambda: _set_sysctls(namespace))
            for leg in router.legs:
                legs.ensure_leg(self._inner(router, leg), self._segments.bridge(leg.network))
            wanted = {marks.router_leg_name(leg.port.id) for leg in router.legs}

            def within(ipr: IPRoute) -> None:
                _only(ipr, wanted, namespace)
                for leg in router.legs:
                    _lead_to_metadata(ipr, leg, namespace)

            with_links(namespace, within)
            self._filter(router, connected=self._connected(router))

    def remove(self, router_id: str) -> None:
        """Remove a router's namespace with its legs; already gone is fine."""
        namespace = marks.router_namespace(router_id)
        with self._site.locked(router_id):
            legs.remove_legs(namespace)
            namespaces.remove(namespace)

    def connect(self, router: Router) -> None:
        """Make the router's gateway leg, its default route and its SNAT.

        Neighbours are told of the address by gratuitous ARP, as it may have been
        another's before.

        Raises:
            InvalidRequest: The router has no gateway, or its subnet has none.
        """
        gateway = _gateway(router)
        namespace = marks.router_namespace(router.id)
        leg = self._outer(router, gateway)
        with self._site.locked(router.id):
            new = not self._connected(router)
            legs.ensure_leg(leg, self._segments.bridge(gateway.network))
            with_links(namespace, lambda ipr: _default_route(ipr, leg.inner, gateway, namespace))
            self._filter(router, connected=True)
        if new:
            for fixed in gateway.port.addresses:
                arp.announce(namespace, leg.inner, fixed.address)

    def disconnect(self, router: Router) -> None:
        """Remove the router's gateway leg, and with it its default route, and its SNAT."""
        namespace = marks.router_namespace(router.id)
        with self._site.locked(router.id):
            if not namespaces.exists(namespace):
                return
            with_links(namespace, lambda ipr: _only(ipr, set(), namespace, prefix="qg-"))
            self._filter(router, connected=False)

    def differences(self, router: Router) -> list[str]:
        """What of the router is not as it should be, in words."""
        namespace = marks.router_namespace(router.id)
        if not namespaces.exists(namespace):
            return [f"the namespace {namespace} is not there"]
        wanted = [self._inner(router, leg) for leg in router.legs]
        if router.gateway:
            wanted.append(self._outer(router, router.gateway))

        def look(ipr: IPRoute) -> list[str]:
            wrong = [text for leg in wanted for text in legs.differences(ipr, leg)]
            if not namespaces.is_set("net/ipv4/ip_forward", "1"):
                wrong.append(f"{namespace} does not forward")
            if router.gateway and router.gateway.subnet.gateway:
                there = {route.get("gateway") for route in ipr.get_default_routes(family=2)}
                if str(router.gateway.subnet.gateway) not in there:
                    wrong.append(f"the default route of {namespace} leads to {sorted(there)}")
            chains = self._chains(router, connected=router.gateway is not None)
            return wrong + table_differences(self._table(), chains)

        return with_links(namespace, look)

    def _connected(self, router: Router) -> bool:
        namespace = marks.router_namespace(router.id)

        def look(ipr: IPRoute) -> bool:
            return any(link.name.startswith("qg-") for link in links.all_links(ipr))

        return with_links(namespace, look)

    def _inner(self, router: Router, leg: RouterLeg) -> Leg:
        return self._leg(router, leg, marks.router_leg_name(leg.port.id))

    def _outer(self, router: Router, leg: RouterLeg) -> Leg:
        return self._leg(router, leg, marks.gateway_leg_name(leg.port.id))

    def _leg(self, router: Router, leg: RouterLeg, inner: str) -> Leg:
        length = leg.subnet.cidr.prefixlen
        return Leg(
            alias=self._site.alias("port", leg.port.id),
            outer=marks.tap_name(leg.port.id),
            inner=inner,
            namespace=marks.router_namespace(router.id),
            mac=leg.port.mac,
            mtu=leg.network.mtu,
            addresses=tuple(f"{fixed.address}/{length}" for fixed in leg.port.addresses),
        )

    def _table(self) -> Json:
        return {"family": "ip", "table": marks.firewall_table(self._site.name)}

    def _chains(self, router: Router, *, connected: bool) -> list[Chain]:
        replies = Rule((nft.state("established", "related"), ACCEPT), "replies")
        inner = nft.match(nft.meta("iifname"), "qr-*")
        forward = [replies, Rule((inner, ACCEPT), "from the tenant's networks")]
        chains = [
            Chain(
                "forward",
                {"type": "filter", "hook": "forward", "prio": 0, "policy": "drop"},
                forward,
            )
        ]
        if not connected or router.gateway is None:
            return chains
        outer = marks.gateway_leg_name(router.gateway.port.id)
        if not router.snat:
            from_outside = nft.match(nft.meta("iifname"), outer)
            forward.append(Rule((from_outside, ACCEPT), "from outside, as nothing is translated"))
            return chains
        address = str(router.gateway.port.addresses[0].address)
        leaving = nft.match(nft.meta("oifname"), outer)
        hook: dict[str, object] = {"type": "nat", "hook": "postrouting", "prio": 100}
        snat = Rule((leaving, {"snat": {"addr": address}}), f"as {address}")
        return [*chains, Chain("postrouting", {**hook, "policy": "accept"}, [snat])]

    def _filter(self, router: Router, *, connected: bool) -> None:
        table, namespace = self._table(), marks.router_namespace(router.id)
        chains = self._chains(router, connected=connected)

        if namespaces.run_in(namespace, lambda: apply_table(table, chains)):
            lines = [
                f"ip netns exec {namespace} nft add rule ip {table['table']} {chain.name} "
                + nft_words.rule(rule.statements)
                for chain in chains
                for rule in chain.rules
            ]
            changes.record(f"Set the filter and translation of {namespace}", "\n".join(lines))


def _gateway(router: Router) -> RouterLeg:
    if router.gateway is None:
        raise InvalidRequest(f"the router {router.name} has no gateway")
    if router.gateway.subnet.gateway is None:
        raise InvalidRequest(
            f"the external network {router.gateway.network.name} has no gateway address"
        )
    return router.gateway


def _set_sysctls(namespace: str) -> None:
    for key, value in _SYSCTLS.items():
        if namespaces.sysctl(key, value):
            name = key.replace("/", ".")
            changes.record(
                f"Set {name} to {value} in {namespace}",
                ["ip", "netns", "exec", namespace, "sysctl", "-w", f"{name}={value}"],
            )


def _only(ipr: IPRoute, wanted: set[str], namespace: str, prefix: str = "qr-") -> None:
    for link in links.all_links(ipr):
        if link.name.startswith(prefix) and link.name not in wanted:
            ipr.link("del", index=link.index)
            changes.record(
                f"Deleted the leg {link.name} of {namespace}",
                ["ip", "-n", namespace, "link", "delete", link.name],
            )


def _lead_to_metadata(ipr: IPRoute, leg: RouterLeg, namespace: str) -> None:
    name = marks.router_leg_name(leg.port.id)
    table = leg.port.mark
    # The route goes with its leg, the rule does not: it may be one of an earlier leg.
    link = links.need(ipr, name)
    there = ipr.get_routes(family=2, table=table)
    if not any(route.get("oif") == link.index for route in there):
        route = {"dst": f"{METADATA_ADDRESS}/32", "oif": link.index, "scope": _SCOPE_LINK}
        ipr.route("replace", table=table, **route)
        changes.record(
            f"Led {METADATA_ADDRESS} back into {name}",
            [
                *("ip", "-n", namespace, "route", "replace", METADATA_ADDRESS),
                *("dev", name, "table", str(table)),
            ],
        )
    try:
        ipr.rule("add", family=2, iifname=name, table=table)
    except NetlinkError as error:
        if error.code != links.EXISTS:
            raise
        return
    changes.record(
        f"Gave {name} a table of routes",
        ["ip", "-n", namespace, "rule", "add", "iif", name, "lookup", str(table)],
    )


def _default_route(ipr: IPRoute, leg: str, gateway: RouterLeg, namespace: str) -> None:
    address = str(gateway.subnet.gateway)
    link = links.need(ipr, leg)
    for route in ipr.get_default_routes(family=2):
        if route.get("gateway") == address and route.get("oif") == link.index:
            return
    ipr.route("replace", dst="0.0.0.0/0", gateway=address, oif=link.index)
    changes.record(
        f"Led everything else to {address}",
        ["ip", "-n", namespace, "route", "replace", "default", "via", address, "dev", leg],
    )

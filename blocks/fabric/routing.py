"""Routers: a namespace with a leg in each network, as Neutron's L3 agent makes them.

Guests that do not take the route to the metadata address from DHCP ask their router for
it. The router sends such packets back into the network they came from, where the DHCP
namespace answers: one rule and one table for each leg (ip-rule(8)), so that networks that
share a router never get each other's metadata.

A floating IP is an address of the gateway leg (so that the router answers ARP for it) and
an element in the maps of the router's table (`translation`).
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address

from pyroute2 import IPRoute

from blocks import changes, marks
from blocks.errors import InvalidRequest
from blocks.fabric import (
    arp,
    connections,
    legs,
    links,
    namespaces,
    nft_words,
    router_routes,
    translation,
)
from blocks.fabric.connections import Connection
from blocks.fabric.legs import Leg
from blocks.fabric.links import with_links
from blocks.fabric.nft import Json
from blocks.fabric.segments import SegmentDriver
from blocks.fabric.site import Site
from blocks.fabric.tables import apply_table, table_differences
from blocks.resources import Router, RouterLeg

_SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    # A source must be one that its leg leads to (RFC 3704, strict).
    "net/ipv4/conf/all/rp_filter": "1",
    # A packet for the metadata address leaves where it came in; that is no mistake.
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
}
#: A router's connections are in the zone that packets are in by default.
_ZONE = 0
#: Reads a router's record while its lock is held: what was read before could undo what
#: another process has done to the router meanwhile.
Read = Callable[[], Router]


class Routing:
    """The site's routers on this host."""

    def __init__(self, site: Site, segments: SegmentDriver) -> None:
        self._site = site
        self._segments = segments

    def realize(self, router: Router, read: Read | None = None) -> None:
        """Make the router's namespace, with exactly the legs and routes it is described with.

        Args:
            router: Its legs; the segments of their networks are realized already. Its
                gateway leg is left as it is, there or not; that of another gateway goes.
            read: Reads its record again, when no other process can change the router.

        Raises:
            InvalidRequest: One of its routes leads nowhere.
        """
        with self._site.locked(router.id):
            self._realize_or_remove(read() if read else router)

    def follow(self, router_id: str, read: Read) -> None:
        """Make a router be as it is recorded; one without legs and gateway is removed."""
        with self._site.locked(router_id):
            router = read()
            self._realize_or_remove(router)
            if router.gateway:
                self._connect(router)

    def remove(self, router_id: str) -> None:
        """Remove a router's namespace with its legs; already gone is fine."""
        with self._site.locked(router_id):
            self._remove(router_id)

    def connect(self, router: Router, read: Read | None = None) -> None:
        """Make the router's gateway leg, default route, SNAT and exactly its floating IPs.

        Neighbours are told of its addresses by gratuitous ARP, as they may have been
        another's before, and connections that are translated otherwise are cut. A floating
        IP that moves from one router to another is to be taken from the first one first.

        Raises:
            InvalidRequest: The router has no gateway, or its subnet has none; or one of
                its routes leads nowhere.
        """
        with self._site.locked(router.id):
            current = read() if read else router
            if current.gateway or read is None:
                self._connect(current)

    def disconnect(self, router: Router) -> None:
        """Remove the router's gateway leg, and with it its default route and translation.

        What leads over the external network of the routes that it was given goes, too.
        """
        namespace = marks.router_namespace(router.id)
        with self._site.locked(router.id):
            if not namespaces.exists(namespace):
                return
            with_links(namespace, lambda ipr: legs.keep_only(ipr, "qg-", set(), namespace))
            self._translate(router, connected=False)
            self._cut(router, connected=False)

    def differences(self, router: Router, port_id: str | None = None) -> list[str]:
        """What of the router is not as it should be, in words.

        Args:
            router: The router.
            port_id: A port of its networks: of the floating IPs only its own are looked at,
                as others may be recorded already and not connected yet, or the other way round.
        """
        alone = port_id is not None
        if alone:
            own = [each for each in router.floating_ips if each.port_id == port_id]
            router = router.model_copy(update={"floating_ips": tuple(own)})
        namespace = marks.router_namespace(router.id)
        if not namespaces.exists(namespace):
            return [f"the namespace {namespace} is not there"]
        connected = router.gateway is not None
        wanted = [self._inner(router, leg) for leg in router.legs]
        if router.gateway:
            wanted.append(self._outer(router, router.gateway))
        try:
            routes = router_routes.wanted(router, connected=connected)
        except InvalidRequest as error:
            return [error.message]

        def look(ipr: IPRoute) -> list[str]:
            wrong = [text for leg in wanted for text in legs.differences(ipr, leg, others=alone)]
            named = {leg.inner for leg in wanted}
            wrong += [
                f"{namespace} has the leg {link.name}, which it should not have"
                for link in links.all_links(ipr)
                if link.name.startswith(("qr-", "qg-")) and link.name not in named
            ]
            if not namespaces.is_set("net/ipv4/ip_forward", "1"):
                wrong.append(f"{namespace} does not forward")
            if router.gateway and router.gateway.subnet.gateway:
                there = {route.get("gateway") for route in ipr.get_default_routes(family=2)}
                if str(router.gateway.subnet.gateway) not in there:
                    wrong.append(f"the default route of {namespace} leads to {sorted(there)}")
            wrong += router_routes.differences(ipr, routes, namespace)
            chains = translation.chains(router, connected=connected)
            maps = translation.maps(router, connected=connected)
            return wrong + table_differences(self._table(), chains, maps, others=alone)

        return with_links(namespace, look)

    def _realize_or_remove(self, router: Router) -> None:
        if router.legs or router.gateway:
            self._realize(router)
        else:
            self._remove(router.id)

    def _realize(self, router: Router) -> None:
        namespace = marks.router_namespace(router.id)
        namespaces.ensure(namespace, self._site.alias("router", router.id))
        namespaces.run_in(namespace, lambda: _set_sysctls(namespace))
        connected = self._connected(router)
        routes = router_routes.wanted(router, connected=connected)
        # Before its legs: it forwards nothing before it is told what.
        self._translate(router, connected=connected)
        for leg in router.legs:
            legs.ensure_leg(self._inner(router, leg), self._segments.bridge(leg.network))
        wanted = {marks.router_leg_name(leg.port.id) for leg in router.legs}
        outer = {marks.gateway_leg_name(router.gateway.port.id)} if router.gateway else set()

        def within(ipr: IPRoute) -> None:
            legs.keep_only(ipr, "qr-", wanted, namespace)
            legs.keep_only(ipr, "qg-", outer, namespace)
            for leg in router.legs:
                router_routes.lead_to_metadata(ipr, leg, namespace)
            router_routes.set_routes(ipr, routes, namespace)

        with_links(namespace, within)
        self._cut(router, connected=connected)

    def _connect(self, router: Router) -> None:
        gateway = _gateway(router)
        namespace = marks.router_namespace(router.id)
        leg = self._outer(router, gateway)
        routes = router_routes.wanted(router, connected=True)

        def within(ipr: IPRoute) -> None:
            router_routes.lead_outside(ipr, leg.inner, gateway, namespace)
            router_routes.set_routes(ipr, routes, namespace)

        # Before its leg: at no time does anything leave with a guest's own address,
        # nor does the router itself answer for a floating IP.
        self._translate(router, connected=True)
        with_links(namespace, lambda ipr: legs.keep_only(ipr, "qg-", {leg.inner}, namespace))
        legs.ensure_leg(leg, self._segments.bridge(gateway.network))
        with_links(namespace, within)
        self._cut(router, connected=True)
        # Each time: whoever was killed here has told nobody.
        fixed = [each.address for each in gateway.port.addresses]
        arp.announce(namespace, leg.inner, [*fixed, *translation.floating(router)])

    def _remove(self, router_id: str) -> None:
        namespace = marks.router_namespace(router_id)
        legs.remove_legs(namespace)
        namespaces.remove(namespace)

    def _connected(self, router: Router) -> bool:
        namespace = marks.router_namespace(router.id)
        if router.gateway is None:
            return False
        leg = marks.gateway_leg_name(router.gateway.port.id)
        return with_links(namespace, lambda ipr: links.find(ipr, leg) is not None)

    def _inner(self, router: Router, leg: RouterLeg) -> Leg:
        return self._leg(router, leg, marks.router_leg_name(leg.port.id))

    def _outer(self, router: Router, leg: RouterLeg) -> Leg:
        return self._leg(
            router, leg, marks.gateway_leg_name(leg.port.id), tuple(translation.floating(router))
        )

    def _leg(
        self, router: Router, leg: RouterLeg, inner: str, others: tuple[IPv4Address, ...] = ()
    ) -> Leg:
        length = leg.subnet.cidr.prefixlen
        own = [f"{fixed.address}/{length}" for fixed in leg.port.addresses]
        return Leg(
            alias=self._site.alias("port", leg.port.id),
            outer=marks.tap_name(leg.port.id),
            inner=inner,
            namespace=marks.router_namespace(router.id),
            mac=leg.port.mac,
            mtu=leg.network.mtu,
            addresses=(*own, *(f"{address}/32" for address in others)),
        )

    def _table(self) -> Json:
        return {"family": "ip", "table": marks.firewall_table(self._site.name)}

    def _translate(self, router: Router, *, connected: bool) -> None:
        table, namespace = self._table(), marks.router_namespace(router.id)
        chains = translation.chains(router, connected=connected)
        maps = translation.maps(router, connected=connected)
        if not namespaces.run_in(namespace, lambda: apply_table(table, chains, maps)):
            return
        inside = f"ip netns exec {namespace} nft add"
        lines = [
            f"{inside} element ip {table['table']} {each.name} {{ {key} : {value} }}"
            for each in maps
            for key, value in each.elements.items()
        ]
        lines += [
            f"{inside} rule ip {table['table']} {chain.name} {nft_words.rule(rule.statements)}"
            for chain in chains
            for rule in chain.rules
        ]
        changes.record(f"Set the filter and translation of {namespace}", "\n".join(lines))

    def _cut(self, router: Router, *, connected: bool) -> None:
        namespace = marks.router_namespace(router.id)

        def inside() -> list[Connection]:
            there = connections.tracked(_ZONE)
            wrong = translation.stale(router, there, connected=connected)
            connections.cut(_ZONE, wrong)
            return wrong

        wrong = namespaces.run_in(namespace, inside)
        if wrong:
            changes.record(
                f"Cut {len(wrong)} connections that {namespace} would not forward any more",
                "\n".join(
                    f"ip netns exec {namespace} conntrack -D --orig-src {source} --orig-dst {to}"
                    for source, to in connections.ends(wrong)
                ),
            )


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

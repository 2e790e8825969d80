"""The far end of an external network: what is behind the routers' gateway.

`closed`: a namespace that holds the gateway's address and nothing behind it; `uplink`:
this host, which forwards and masquerades; `bridge`: whatever the operator joins.
"""

from __future__ import annotations

from dataclasses import replace

from pyroute2 import IPRoute

from blocks import changes, marks
from blocks.errors import InvalidRequest
from blocks.fabric import legs, links, namespaces, nft, nft_words
from blocks.fabric.firewall_rules import Rule
from blocks.fabric.legs import Leg
from blocks.fabric.links import with_links
from blocks.fabric.nft import ACCEPT, DROP, Json
from blocks.fabric.segments import SegmentDriver
from blocks.fabric.site import Site
from blocks.fabric.tables import Chain, apply_table, table_differences
from blocks.resources import Network, Subnet


class Outside:
    """The far ends of the site's external networks."""

    def __init__(self, site: Site, segments: SegmentDriver) -> None:
        self._site = site
        self._segments = segments

    def realize(self, network: Network, subnet: Subnet) -> None:
        """Make what the network's `outside` says, on its bridge.

        `uplink` turns `net.ipv4.ip_forward` on for the host (and leaves it so, as others
        may rely on it by then).

        Raises:
            InvalidRequest: The subnet has no gateway address, or an operator's bridge
                is to be an uplink of ours.
        """
        if network.outside == "bridge":
            return
        with self._site.locked(network.id):
            if network.outside == "closed":
                self._close(network, subnet)
            else:
                self._uplink(network, subnet)

    def remove(self, network: Network) -> None:
        """Remove the far end, whichever it is; already gone is fine."""
        with self._site.locked(network.id):
            namespace = marks.outside_namespace(network.id)
            legs.remove_legs(namespace)
            namespaces.remove(namespace)
            table = self._table(network)
            if nft.listing("table", family="ip", name=table["table"]) is not None:
                nft.apply(nft.remove_table(table))
                changes.record(
                    f"Removed the table {table['table']}",
                    ["nft", "delete", "table", "ip", table["table"]],
                )
            if not network.physical_bridge:
                with_links(None, lambda ipr: _without_addresses(ipr, marks.bridge_name(network.id)))

    def differences(self, network: Network, subnet: Subnet) -> list[str]:
        """What of the far end is not as it should be, in words."""
        if network.outside == "closed":
            namespace = marks.outside_namespace(network.id)
            # Where an earlier version made it, the kernel chose its MAC address.
            leg = replace(self._leg(network, subnet), mac=None)
            if not namespaces.exists(namespace):
                return [f"the namespace {namespace} is not there"]
            return with_links(namespace, lambda ipr: legs.differences(ipr, leg))
        if network.outside == "bridge":
            return []
        chains = _uplink_chains(self._segments.bridge(network), subnet)
        return table_differences(self._table(network), chains)

    def _close(self, network: Network, subnet: Subnet) -> None:
        leg = self._leg(network, subnet)
        namespaces.ensure(leg.namespace, leg.alias)
        legs.ensure_leg(leg, self._segments.bridge(network))

    def _leg(self, network: Network, subnet: Subnet) -> Leg:
        alias = self._site.alias("outside", network.id)
        return Leg(
            alias=alias,
            outer=marks.tap_name(network.id),
            inner=marks.dhcp_leg_name(network.id),
            namespace=marks.outside_namespace(network.id),
            # The same each time it is made: routers go on with what they know of it.
            mac=links.own_mac(alias),
            mtu=network.mtu,
            addresses=(_gateway(network, subnet),),
        )

    def _uplink(self, network: Network, subnet: Subnet) -> None:
        if network.physical_bridge:
            raise InvalidRequest(
                f"the external network {network.name} uses the operator's bridge "
                f"{network.physical_bridge}: its uplink is the operator's, too",
                hint="make it with `outside` = bridge, or without a bridge of your own",
            )
        name = self._segments.bridge(network)
        table, chains = self._table(network), _uplink_chains(name, subnet)
        # The fence first: at no time is there a way in without it.
        if apply_table(table, chains):
            changes.record(
                f"Fenced the uplink of {network.name}",
                "\n".join(
                    f"nft add rule ip {table['table']} {chain.name} "
                    + nft_words.rule(rule.statements)
                    for chain in chains
                    for rule in chain.rules
                ),
            )
        address = _gateway(network, subnet)
        with_links(None, lambda ipr: legs.set_addresses(ipr, links.need(ipr, name), (address,)))
        if namespaces.sysctl("net/ipv4/ip_forward", "1"):
            changes.record("Made this host forward IPv4", "sysctl -w net.ipv4.ip_forward=1")

    def _table(self, network: Network) -> Json:
        return uplink_table(self._site, network.id)


def uplink_table(site: Site, network_id: str) -> Json:
    """The table that fences a network's uplink."""
    return {"family": "ip", "table": f"{marks.firewall_table(site.name)}_{network_id}"}


def _uplink_chains(bridge: str, subnet: Subnet) -> list[Chain]:
    """Out with what has an address of the subnet, masqueraded; in with the replies only."""
    cidr = {"prefix": {"addr": str(subnet.cidr.network_address), "len": subnet.cidr.prefixlen}}
    came = nft.match(nft.meta("iifname"), bridge)
    goes = nft.match(nft.meta("oifname"), bridge)
    other = nft.match(nft.meta("oifname"), bridge, "!=")
    own, foreign = (nft.match(nft.field("ip", "saddr"), cidr, op) for op in ("==", "!="))
    replies = nft.state("established", "related")
    forward = [
        Rule((came, foreign, DROP), "nobody else's address"),
        Rule((goes, replies, ACCEPT), "replies"),
        Rule((goes, DROP), "nothing else from outside"),
    ]
    to_host = [
        Rule((came, replies, ACCEPT), "replies to this host"),
        Rule((came, nft.match(nft.meta("l4proto"), "icmp"), ACCEPT), "ping"),
        Rule((came, DROP), "none of this host's services"),
    ]
    # `came` matters here, too: bridged packets pass this hook without having come
    # through the bridge device, and must keep their addresses.
    masquerade = [Rule((came, own, other, {"masquerade": None}), "as this host")]
    base = {"policy": "accept"}
    return [
        Chain("forward", {"type": "filter", "hook": "forward", "prio": 0, **base}, forward),
        Chain("input", {"type": "filter", "hook": "input", "prio": 0, **base}, to_host),
        Chain(
            "postrouting", {"type": "nat", "hook": "postrouting", "prio": 100, **base}, masquerade
        ),
    ]


def _gateway(network: Network, subnet: Subnet) -> str:
    if subnet.gateway is None:
        raise InvalidRequest(f"the external network {network.name} has no gateway address")
    return f"{subnet.gateway}/{subnet.cidr.prefixlen}"


def _without_addresses(ipr: IPRoute, bridge: str) -> None:
    link = links.find(ipr, bridge)
    if link is not None:
        legs.set_addresses(ipr, link, ())

"""The firewall's tables: the part that all ports share, in the two forms a kernel may need.

- `OneTable`, for kernels with nf_conntrack_bridge (stock distributions have it): a table
  of family bridge knows connections, and its chains go by the port's own name.
- `TwoTables`, for kernels without it, where `ct state` in family bridge is refused: the
  family bridge decides what may leave a port and writes the port's number into the
  packet's mark; the family inet, which sees the same packet by way of br_netfilter but
  not the port it came from, goes by that mark. Whatever passes has its mark set to 0
  again, and packets that neither come from nor go to a port of ours keep theirs.

Which one a kernel gets is asked of it (`kernel.tracks_connections_in_bridges`). The same tests
run with both: `tests/stock_kernel` has them run under a distribution's kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from blocks import marks
from blocks.fabric import kernel, nft
from blocks.fabric.firewall_rules import PASS, Rule
from blocks.fabric.nft import ACCEPT, DROP, Json
from blocks.resources import Network, Port

#: Table, name and rules of chains.
Chains = list[tuple[Json, str, list[Rule]]]
#: Table, name of a map or set, and an element of it.
Members = list[tuple[Json, str, Any]]

_RAW, _MANGLE, _EARLY, _FILTER = -300, -150, -200, 0


@dataclass(frozen=True)
class BaseChain:
    """A chain that every packet of a hook goes through."""

    table: Json
    name: str
    hook: str
    priority: int
    rules: tuple[Rule, ...]


@dataclass(frozen=True)
class Tables:
    """The shared part of a site's firewall.

    Attributes:
        bridge: The table that keeps spoofed frames in, and guests from the host.
        stateful: The table with the security groups; the same one in `OneTable`.
        keyed_by: What its `ingress` and `egress` maps go by: `ifname` or `mark`.
    """

    site: str
    bridge: Json
    stateful: Json
    keyed_by: str

    def key(self, port: Port) -> object:
        """What stands for a port in the maps `ingress` and `egress`."""
        return packet_mark(self.site, port) if self.keyed_by == "mark" else port.tap

    def tables(self) -> list[Json]:
        """The tables there are."""
        return [self.bridge] if self.bridge == self.stateful else [self.bridge, self.stateful]

    def maps(self) -> list[tuple[Json, str, dict[str, str]]]:
        """Table, name and types of each map and set."""
        verdict = {"type": "ifname", "map": "verdict"}
        stateful = {"type": self.keyed_by, "map": "verdict"}
        common: list[tuple[Json, str, dict[str, str]]] = [
            (self.bridge, "guards", verdict),
            (self.bridge, "guests", {"type": "ifname"}),
            (self.stateful, "egress", stateful),
            (self.stateful, "ingress", stateful),
            (self.stateful, "zones", verdict),
        ]
        if self.keyed_by == "mark":
            common.append((self.bridge, "marks", {"type": "ifname", "map": "mark"}))
        return common

    def chains(self) -> list[BaseChain]:
        """The chains that are hooked into the kernel."""
        b, s, meta = self.bridge, self.stateful, nft.meta
        marked = self.keyed_by == "mark"
        iif, oif = (meta("mark"), meta("mark")) if marked else (meta("iifname"), meta("oifname"))
        zone_key = meta("iifname") if marked else meta("ibrname")
        guards = nft.verdict_map(meta("iifname"), "guards")
        spoofing = [*_mark("iifname", marked), Rule((guards,), "guests say who they are")]
        arp, ipv4 = (nft.match(nft.field("ether", "type"), kind) for kind in ("arp", "ip"))
        deliver = [
            Rule((arp, ACCEPT), "ARP"),
            *_mark("oifname", marked),
            Rule((ipv4, ACCEPT), "IPv4"),
            _no_guest("oifname", "nothing else reaches a guest"),
        ]
        to_host = [_no_guest("iifname", "guests do not reach the host")]
        from_host = [_no_guest("oifname", "the host does not reach guests")]
        zone = [Rule((nft.verdict_map(zone_key, "zones"),), "each network's connections apart")]
        # The family inet sees nothing but IP; in one of family bridge ARP comes along.
        only = () if marked else (ipv4,)
        egress = [Rule((*only, nft.verdict_map(iif, "egress")), "what guests may send")]
        ingress = [Rule((*only, nft.verdict_map(oif, "ingress")), "what guests may receive")]
        return [
            BaseChain(b, "spoofing", "prerouting", _RAW, tuple(spoofing)),
            BaseChain(b, "deliver", "forward", _EARLY, tuple(deliver)),
            BaseChain(b, "to-host", "input", _EARLY, tuple(to_host)),
            BaseChain(b, "from-host", "output", _EARLY, tuple(from_host)),
            BaseChain(s, "zoning", "prerouting", _RAW, tuple(zone)),
            BaseChain(s, "leaving", "prerouting", _MANGLE, tuple(egress)),
            BaseChain(s, "arriving", "forward", _FILTER, tuple(ingress)),
        ]

    def shared(self) -> Chains:
        """Table, name and rules of all chains that do not belong to one port."""
        hooked: Chains = [(chain.table, chain.name, list(chain.rules)) for chain in self.chains()]
        return [*hooked, (self.stateful, PASS, self.passing())]

    def commands(self) -> list[Json]:
        """The commands that make the shared part, or leave it as it is."""
        made: list[Json] = []
        for table in self.tables():
            made.append({"add": {"table": {"family": table["family"], "name": table["table"]}}})
        for table, name, kinds in self.maps():
            kind = "map" if "map" in kinds else "set"
            made.append({"add": {kind: {**table, "name": name, **kinds}}})
        for chain in self.chains():
            hook = {"type": "filter", "hook": chain.hook, "prio": chain.priority}
            made.append(nft.add_chain(chain.table, chain.name, policy="accept", **hook))
            made += fill(chain.table, chain.name, chain.rules)
        made.append(nft.add_chain(self.stateful, PASS))
        return [*made, *fill(self.stateful, PASS, self.passing())]

    def passing(self) -> list[Rule]:
        """The rules of the chain that lets packets pass."""
        if self.keyed_by == "mark":
            reset = {"mangle": {"key": nft.meta("mark"), "value": 0}}
            return [Rule((reset, ACCEPT), "let it pass, the mark taken off")]
        return [Rule((ACCEPT,), "let it pass")]

    def members(self, port: Port) -> Members:
        """Table, map and element, for everything that points to a port's chains."""
        key = self.key(port)
        found: Members = [
            (self.bridge, "guards", [port.tap, nft.goto(f"guard-{port.id}")]),
            (self.bridge, "guests", port.tap),
            (self.stateful, "egress", [key, nft.goto(f"egress-{port.id}")]),
            (self.stateful, "ingress", [key, nft.goto(f"ingress-{port.id}")]),
        ]
        if self.keyed_by == "mark":
            found.append((self.bridge, "marks", [port.tap, packet_mark(self.site, port)]))
        return found

    def zone(self, network: Network) -> list[Json]:
        """The commands that give a network its conntrack zone.

        An operator's bridge gets none: its addresses are those of the world outside, and
        the host's own connections over it must stay in the zone they began in.
        """
        if network.physical_bridge:
            return []
        table, name, member = self.zone_member(network)
        chain = f"zone-{network.zone}"
        zone = {"mangle": {"key": {"ct": {"key": "zone"}}, "value": network.zone}}
        return [
            nft.add_chain(table, chain),
            *fill(table, chain, [Rule((zone,), f"zone {network.zone}")]),
            nft.add_elements(table, name, [member]),
        ]

    def zone_member(self, network: Network) -> tuple[Json, str, Any]:
        """Table, map and element that lead a network's packets to its zone."""
        member = [marks.bridge_name(network.id), nft.goto(f"zone-{network.zone}")]
        return self.stateful, "zones", member


def tables_of(site: str) -> Tables:
    """The tables of a site, in the form that this kernel needs."""
    name = marks.firewall_table(site)
    bridge = {"family": "bridge", "table": name}
    if kernel.tracks_connections_in_bridges():
        return one_table(site)
    return Tables(site, bridge, {"family": "inet", "table": name}, "mark")


def one_table(site: str) -> Tables:
    """The form for kernels with nf_conntrack_bridge."""
    bridge = {"family": "bridge", "table": marks.firewall_table(site)}
    return Tables(site, bridge, bridge, "ifname")


def packet_mark(site: str, port: Port) -> int:
    """The number that stands for a port in a packet's mark: 32 bits, never 0.

    The port's own number is unique in its site; the site is mixed in so that the ports
    of two sites that share a host, each counting for itself, have different marks.
    """
    return 0x80000000 | (port.mark ^ (int(site, 16) << 15))


def fill(table: Json, chain: str, rules: Sequence[Rule]) -> list[Json]:
    """The commands that give a chain exactly these rules."""
    emptied = {"flush": {"chain": {**table, "name": chain}}}
    return [emptied, *(nft.add_rule(table, chain, rule.statements, rule.comment) for rule in rules)]


def _mark(side: str, marked: bool) -> list[Rule]:
    if not marked:
        return []
    ipv4 = nft.match(nft.field("ether", "type"), "ip")
    value = {"map": {"key": nft.meta(side), "data": "@marks"}}
    return [Rule((ipv4, {"mangle": {"key": nft.meta("mark"), "value": value}}), f"mark by {side}")]


def _no_guest(side: str, words: str) -> Rule:
    return Rule((nft.match(nft.meta(side), "@guests"), DROP), words)

"""The firewall of the ports: anti-spoofing and security groups, one port at a time.

A port has three chains of its own (`guard-`, `egress-`, `ingress-` and its id) and one
element in each map that leads there. One transaction makes or replaces all of them, so
that a port is never without its rules, and no other port's rules are touched: processes
that work on different ports, and two sites on one host, do not disturb each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from blocks import changes, marks
from blocks.errors import InvalidRequest
from blocks.fabric import (
    connections,
    firewall_rules,
    nft,
    nft_reading,
    nft_words,
    open_connections,
)
from blocks.fabric.firewall_rules import Rule
from blocks.fabric.firewall_state import amiss_of, differences, target_of
from blocks.fabric.firewall_tables import Chains, Tables, fill, tables_of
from blocks.fabric.nft import Json
from blocks.fabric.site import Site
from blocks.resources import Network, Port, PortBinding

_LOCK = "firewall"
_KINDS = ("guard", "egress", "ingress")


class Firewall:
    """The site's tables in nftables."""

    def __init__(self, site: Site) -> None:
        self._site = site

    @contextmanager
    def held(self) -> Iterator[Callable[[PortBinding], None]]:
        """Keep every other process from changing any rule.

        What is applied is to be read in here: rules that were read before could be older
        than those that another process has applied meanwhile, or be those of a port whose
        rules it has removed.

        Yields:
            Applies a port's anti-spoofing and security groups, all in one transaction. What
            no rule lets in or out is dropped; replies to what was let pass are not; the
            port's DHCP always works. At the end, connections of these ports that no rule
            lets begin any more are cut, and no others. InvalidRequest: the port has no tap's
            name or no MAC address yet; HostFault: nftables refused the rules, and nothing
            was changed.
        """
        known: list[PortBinding] = []
        with self._site.locked(_LOCK):
            try:
                yield lambda binding: known.extend(self._protect(binding))
            finally:
                self._cut_revoked(known)

    def _protect(self, binding: PortBinding) -> list[PortBinding]:
        """Apply a port's rules; give it back where it may have open connections."""
        tables = self._tables()
        chains = _chains(tables, binding)
        there = [nft_reading.comments(table, name) for table, name, _ in chains]
        amiss = [
            chain
            for chain, said in zip(chains, there, strict=True)
            if said != [rule.comment for rule in chain[2]]
        ]
        nft.apply(_transaction(tables, binding, amiss))
        if amiss:
            changes.record(
                f"Applied {sum(len(rules) for _, _, rules in amiss)} firewall rules "
                f"to {binding.port.tap}",
                "\n".join(line for chain in amiss for line in _typed(*chain)),
            )
        # Also where all is right: who applied it may have been killed before the cut.
        return [binding] if any(said is not None for said in there) else []

    def _cut_revoked(self, known: list[PortBinding]) -> None:
        tables = self._tables()
        for network_id in {binding.port.network_id for binding in known}:
            ports = [binding for binding in known if binding.port.network_id == network_id]
            open_connections.cut_revoked(_zone(tables, network_id), ports)

    def unprotect(self, port: Port) -> None:
        """Remove a port's rules, and the tables with the last port; already gone is fine."""
        if port.tap is None:
            return
        tables = self._tables()
        with self._site.locked(_LOCK):
            there = nft.elements(tables.bridge, "guests", "set")
            if port.tap not in there:
                return
            zone = _zone(tables, port.network_id)
            if there == [port.tap]:
                nft.apply([each for table in tables.tables() for each in nft.remove_table(table)])
            else:
                nft.apply(_removal(tables, port))
        changes.record(
            f"Removed the firewall rules of {port.tap}",
            "\n".join(
                f"nft delete chain {table['family']} {table['table']} {name}"
                for table, name in _chain_names(tables, port.id)
            ),
        )
        _cut_connections(zone, port)

    def remove(self, port_id: str) -> None:
        """Remove all that leads to a port's chains, and them, by the port's id alone."""
        tables = self._tables()
        with self._site.locked(_LOCK):
            chains = [
                (table, name)
                for table, name in _chain_names(tables, port_id)
                if nft.listing("chain", **table, name=name) is not None
            ]
            targets = {name for _, name in chains}
            batch: list[Json] = []
            taps: set[str] = set()
            for table, name, kinds in tables.maps():
                if kinds.get("map") == "verdict":
                    keys = [k for k, to in nft.elements(table, name) if target_of(to) in targets]
                    taps |= set(keys) if name == "guards" else set()
                    batch += [nft.delete_elements(table, name, keys)] if keys else []
            guests = set(nft.elements(tables.bridge, "guests", "set"))
            marked = [e for e in nft.elements(tables.bridge, "marks") if e[0] in taps]
            batch += [nft.delete_elements(tables.bridge, "guests", [tap]) for tap in taps & guests]
            batch += [nft.delete_elements(tables.bridge, "marks", [tap]) for tap, _ in marked]
            if guests <= taps:
                batch = [each for table in tables.tables() for each in nft.remove_table(table)]
            else:
                batch += [each for chain in chains for each in _without_chain(*chain)]
            nft.apply(batch)
        changes.record(
            f"Removed the firewall rules of the port {port_id}",
            "\n".join(f"nft delete chain {t['family']} {t['table']} {n}" for t, n in chains),
        )

    def forget_connections(self, network_id: str, address: str) -> None:
        """Forget the open connections of an address, by the network's id alone.

        Of a network that shares the host's own zone (an operator's bridge) none is cut: by
        an address alone it would not be known whose they are.
        """
        zone = _zone(self._tables(), network_id)
        if zone:
            connections.cut_address(zone, address)

    def forget_network(self, network: Network) -> None:
        """Take a network's conntrack zone out of the tables, where there are any."""
        tables = self._tables()
        bridge = marks.bridge_name(network.id)
        with self._site.locked(_LOCK):
            if any(element[0] == bridge for element in nft.elements(tables.stateful, "zones")):
                nft.apply(
                    [
                        nft.delete_elements(tables.stateful, "zones", [bridge]),
                        *_without_chain(tables.stateful, f"zone-{network.zone}"),
                    ]
                )

    def differences(self, binding: PortBinding) -> list[str]:
        """What of a port's own rules is not in the kernel as it should be, in words."""
        tables = self._tables()
        members = tables.members(binding.port)
        if not binding.network.physical_bridge:
            members.append(tables.zone_member(binding.network))
        return differences(tables, _chains(tables, binding), members)

    def shared_differences(self) -> list[str]:
        """What of the rules of all ports is not in the kernel as it should be, in words."""
        tables = self._tables()
        return differences(tables, tables.shared(), [])

    def protected(self) -> list[str]:
        """The ids of the ports whose chains are there, whole or in part."""
        ids: set[str] = set()
        tables = self._tables()
        for table in tables.tables():
            for item in nft.listing("chains", family=table["family"]) or []:
                chain = item.get("chain", {})
                kind, _, identifier = chain.get("name", "").partition("-")
                if chain.get("table") == table["table"] and kind in _KINDS and len(identifier) > 11:
                    ids.add(identifier)
        return sorted(ids)

    def _tables(self) -> Tables:
        return tables_of(self._site.name)


def _chains(tables: Tables, binding: PortBinding) -> Chains:
    port = binding.port
    if port.tap is None:
        raise InvalidRequest(f"the port {port.id} has no tap's name yet")
    rules = (
        [
            firewall_rules.spoofing(port),
            firewall_rules.directed(binding, "egress"),
            firewall_rules.directed(binding, "ingress"),
        ]
        if port.port_security
        else firewall_rules.without_security()
    )
    names = _chain_names(tables, port.id)
    return [(table, name, own) for (table, name), own in zip(names, rules, strict=True)]


def _chain_names(tables: Tables, port_id: str) -> list[tuple[Json, str]]:
    homes = (tables.bridge, tables.stateful, tables.stateful)
    return [(table, f"{kind}-{port_id}") for table, kind in zip(homes, _KINDS, strict=True)]


def _removal(tables: Tables, port: Port) -> list[Json]:
    """The commands that remove a port's part; elements first, for they hold the chains."""
    batch = []
    for table, name, member in tables.members(port):
        key = member[0] if isinstance(member, list) else member
        # Added before it is deleted: a delete of what is not there fails the transaction.
        batch += [nft.add_chain(*chain) for chain in _chain_names(tables, port.id)]
        batch.append(nft.add_elements(table, name, [member]))
        batch.append(nft.delete_elements(table, name, [key]))
    for table, name in _chain_names(tables, port.id):
        batch += _without_chain(table, name)
    return batch


def _without_chain(table: Json, name: str) -> list[Json]:
    named = {"chain": {**table, "name": name}}
    return [{"flush": named}, {"delete": named}]


def _transaction(tables: Tables, binding: PortBinding, amiss: Chains) -> list[Json]:
    """The commands for what is amiss.

    What is right is left out: to replace a rule or to touch a hook makes the kernel wait
    until no packet is under way in it (some 15 ms on a busy host), to add does not.
    """
    batch = tables.commands() if amiss_of(tables.shared()) else []
    if not nft_reading.holds(*tables.zone_member(binding.network)):
        batch += tables.zone(binding.network)
    for table, name, rules in amiss:
        batch += [nft.add_chain(table, name), *fill(table, name, rules)]
    for table, name, member in tables.members(binding.port):
        batch.append(nft.add_elements(table, name, [member]))
    return batch


def _zone(tables: Tables, network_id: str) -> int:
    bridge = marks.bridge_name(network_id)
    for name, verdict in nft.elements(tables.stateful, "zones"):
        if name == bridge:
            return int(verdict["goto"]["target"].removeprefix("zone-"))
    return 0


def _cut_connections(zone: int, port: Port) -> None:
    """Forget all of a port's open connections, as Neutron does when it goes."""
    for fixed in port.addresses:
        connections.cut_address(zone, str(fixed.address))


def _typed(table: Json, chain: str, rules: list[Rule]) -> list[str]:
    where = f"{table['family']} {table['table']} {chain}"
    return [
        f"nft add chain {where}",
        *(f"nft add rule {where} {nft_words.rule(rule.statements)}" for rule in rules),
    ]

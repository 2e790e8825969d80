"""Small tables of nftables that are kept whole: a router's, an uplink's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from blocks.fabric import nft
from blocks.fabric.firewall_rules import Rule
from blocks.fabric.firewall_tables import fill
from blocks.fabric.nft import Json


@dataclass(frozen=True)
class Chain:
    """A chain that is hooked into the kernel, as libnftables-json(5) describes the hook."""

    name: str
    hook: dict[str, object]
    rules: list[Rule]


@dataclass(frozen=True)
class AddressMap:
    """A map from IPv4 addresses to IPv4 addresses that the chains look into."""

    name: str
    elements: Mapping[str, str]


def apply_table(table: Json, chains: list[Chain], maps: Sequence[AddressMap] = ()) -> bool:
    """Put a table in place, in one transaction, in the namespace of the calling thread.

    Where only elements of its maps differ no chain is touched.

    Returns:
        Whether it was not there, or not so.
    """
    if _form_differences(table, chains, maps):
        nft.apply(_anew(table, chains, maps))
        return True
    batch = [command for each in maps for command in _elements(table, each)]
    if batch:
        nft.apply(batch)
    return bool(batch)


def table_differences(
    table: Json, chains: list[Chain], maps: Sequence[AddressMap] = (), *, others: bool = False
) -> list[str]:
    """What of a table is not as it should be, in the namespace of the calling thread.

    With `others` its maps may have other elements besides.
    """
    wrong = _form_differences(table, chains, maps)
    if wrong:
        return wrong
    return [
        f"the map {each.name} of {table['table']} says {there}, not {dict(each.elements)}"
        for each in maps
        if not _has(there := _there(table, each), each, others=others)
    ]


def _has(there: Mapping[str, str], wanted: AddressMap, *, others: bool) -> bool:
    if others:
        return wanted.elements.items() <= there.items()
    return there == dict(wanted.elements)


def _form_differences(table: Json, chains: list[Chain], maps: Sequence[AddressMap]) -> list[str]:
    listing = nft.listing("table", family=table["family"], name=table["table"])
    if listing is None:
        return [f"the table {table['family']} {table['table']} is not there"]
    wrong = []
    for chain in chains:
        there = nft.comments(listing, table, chain.name)
        if there != [rule.comment for rule in chain.rules]:
            wrong.append(f"the chain {chain.name} of {table['table']} says {there}")
    for kind, wanted in (
        ("chain", {chain.name for chain in chains}),
        ("map", {each.name for each in maps}),
    ):
        names = {item[kind]["name"] for item in listing if kind in item}
        wrong += [
            f"the table {table['table']} has a {kind} {name}" for name in sorted(names - wanted)
        ]
        wrong += [
            f"the table {table['table']} has no {kind} {name}" for name in sorted(wanted - names)
        ]
    return wrong


def _anew(table: Json, chains: list[Chain], maps: Sequence[AddressMap]) -> list[Json]:
    batch = nft.new_table(table)
    for each in maps:
        addresses = {"type": "ipv4_addr", "map": "ipv4_addr"}
        batch.append({"add": {"map": {**table, "name": each.name, **addresses}}})
        if each.elements:
            batch.append(nft.add_elements(table, each.name, _members(each.elements)))
    for chain in chains:
        batch.append(nft.add_chain(table, chain.name, **chain.hook))
        batch += fill(table, chain.name, chain.rules)
    return batch


def _elements(table: Json, wanted: AddressMap) -> list[Json]:
    """The commands that make a map's elements what they should be."""
    there = _there(table, wanted)
    gone = {key for key, value in there.items() if wanted.elements.get(key) != value}
    new = {key: value for key, value in wanted.elements.items() if there.get(key) != value}
    batch = [nft.delete_elements(table, wanted.name, sorted(gone))] if gone else []
    return [*batch, nft.add_elements(table, wanted.name, _members(new))] if new else batch


def _members(elements: Mapping[str, str]) -> list[list[str]]:
    return [[key, value] for key, value in sorted(elements.items())]


def _there(table: Json, wanted: AddressMap) -> dict[str, str]:
    return {str(key): str(value) for key, value in nft.elements(table, wanted.name)}

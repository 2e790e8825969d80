"""Small tables of nftables that are replaced whole: a router's, an uplink's."""

from __future__ import annotations

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


def apply_table(table: Json, chains: list[Chain]) -> bool:
    """Put a table in place, in the namespace of the calling thread.

    Returns:
        Whether it was not there, or not so.
    """
    if not table_differences(table, chains):
        return False
    batch = nft.new_table(table)
    for chain in chains:
        batch.append(nft.add_chain(table, chain.name, **chain.hook))
        batch += fill(table, chain.name, chain.rules)
    nft.apply(batch)
    return True


def table_differences(table: Json, chains: list[Chain]) -> list[str]:
    """What of a table is not as it should be, in the namespace of the calling thread."""
    listing = nft.listing("table", family=table["family"], name=table["table"])
    if listing is None:
        return [f"the table {table['family']} {table['table']} is not there"]
    wrong = []
    names = {item["chain"]["name"] for item in listing if "chain" in item}
    for chain in chains:
        there = nft.comments(listing, table, chain.name)
        if there != [rule.comment for rule in chain.rules]:
            wrong.append(f"the chain {chain.name} of {table['table']} says {there}")
    return wrong + [
        f"the table {table['table']} has a chain {name}"
        for name in sorted(names - {chain.name for chain in chains})
    ]

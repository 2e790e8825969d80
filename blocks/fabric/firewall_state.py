"""What of the ports' rules is in the kernel, and in words what is not."""

from __future__ import annotations

from blocks.fabric import nft, nft_reading
from blocks.fabric.firewall_tables import Chains, Members, Tables
from blocks.fabric.nft import Json


def differences(tables: Tables, chains: Chains, members: Members) -> list[str]:
    """What of some rules is not in the kernel as it should be, a line each.

    Args:
        tables: The site's.
        chains: Those that are looked at.
        members: Members of sets and maps, with table and name, that are looked for.
    """
    amiss = amiss_of(chains)
    missing = [one for one in members if not nft_reading.holds(*one)]
    if not amiss and not missing:
        return []
    gone = _gone(tables)
    lines = [f"the table {words}, with the rules of all ports, is not there" for words in gone]
    lines += [
        f"the chain {_words(table)} {name} does not say what it should"
        for table, name, _ in amiss
        if _words(table) not in gone
    ]
    return lines + [
        f"{_key(member)} is not in {_words(table)} {name}"
        for table, name, member in missing
        if _words(table) not in gone
    ]


def amiss_of(chains: Chains) -> Chains:
    """Those of the chains that are not in the kernel with exactly these rules."""
    return [
        (table, name, rules)
        for table, name, rules in chains
        if nft_reading.comments(table, name) != [rule.comment for rule in rules]
    ]


def target_of(verdict: Json) -> str | None:
    """The chain that a verdict leads to."""
    goto = verdict.get("goto")
    return str(goto["target"]) if goto else None


def _gone(tables: Tables) -> list[str]:
    there = {
        (item["table"]["family"], item["table"]["name"])
        for item in nft.listing("tables") or []
        if "table" in item
    }
    return [
        _words(table) for table in tables.tables() if (table["family"], table["table"]) not in there
    ]


def _words(table: Json) -> str:
    return f"{table['family']} {table['table']}"


def _key(member: object) -> str:
    """A member of a set, or of a map: its key and where that leads."""
    if not isinstance(member, list):
        return str(member)
    key, verdict = member
    target = target_of(verdict) if isinstance(verdict, dict) else None
    return f"{key} (to {target})" if target else str(key)

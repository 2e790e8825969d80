"""nftables by libnftables: commands and answers as JSON (libnftables-json(5)), no text.

Each `apply` is one transaction: the kernel takes all of it or nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import nftables

from blocks.errors import HostFault

#: A command, an expression or a statement, as libnftables-json(5) has it.
Json = dict[str, Any]

ACCEPT: Json = {"accept": None}
DROP: Json = {"drop": None}


def apply(commands: Sequence[Json]) -> None:
    """Carry out commands in one transaction, in the namespace of the calling thread.

    Raises:
        HostFault: The kernel refused it; nothing was changed.
    """
    code, _, said = _run(commands)
    if code:
        raise HostFault(f"nftables refused a change: {said}")


def listing(what: str, **named: str) -> list[Json] | None:
    """List a `table`, `chain`, `map` or `tables`.

    Args:
        what: What to list.
        named: `family`, `table`, `name`, as far as they apply.

    Returns:
        The objects, the opening remark about versions left out; None if it is not there.

    Raises:
        HostFault: nftables refused to answer.
    """
    code, answer, said = _run([{"list": {what: named or None}}])
    if code:
        if "No such file or directory" in said:
            return None
        raise HostFault(f"nftables did not list the {what}: {said}")
    return [item for item in answer["nftables"] if "metainfo" not in item]


def elements(table: Json, name: str, kind: str = "map") -> list[Any]:
    """The elements of a map or set, or nothing where there is no such map."""
    return members(listing(kind, **table, name=name), table, name)


def members(objects: Iterable[Json] | None, table: Json, name: str) -> list[Any]:
    """The elements of a map or set in a listing."""
    return [
        element
        for item in objects or []
        for kind in ("map", "set")
        if kind in item and _is(item[kind], table) and item[kind]["name"] == name
        for element in item[kind].get("elem", [])
    ]


def field(protocol: str, name: str) -> Json:
    """A field of a header, e.g. `tcp`, `dport`."""
    return {"payload": {"protocol": protocol, "field": name}}


def meta(key: str) -> Json:
    """What the kernel knows about the packet, e.g. `iifname`."""
    return {"meta": {"key": key}}


def match(left: Json, right: object, op: str = "==") -> Json:
    """A condition."""
    return {"match": {"op": op, "left": left, "right": right}}


def state(*states: str) -> Json:
    """The condition that the connection is in one of these states."""
    return match({"ct": {"key": "state"}}, list(states), op="in")


def verdict_map(key: Json, name: str) -> Json:
    """Go where the named map says for this key."""
    return {"vmap": {"key": key, "data": f"@{name}"}}


def goto(chain: str) -> Json:
    """Go on in another chain, without coming back."""
    return {"goto": {"target": chain}}


def add_rule(table: Json, chain: str, statements: Iterable[Json], comment: str = "") -> Json:
    """The command that appends a rule; nftables keeps 128 bytes of a comment."""
    rule: Json = {**table, "chain": chain, "expr": list(statements)}
    if comment:
        rule["comment"] = comment[:120]
    return {"add": {"rule": rule}}


def add_chain(table: Json, name: str, **hook: object) -> Json:
    """The command that makes a chain, if it is not there."""
    return {"add": {"chain": {**table, "name": name, **hook}}}


def add_elements(table: Json, name: str, members: Sequence[object]) -> Json:
    """The command that adds elements to a map or set, as far as they are not in it."""
    return {"add": {"element": {**table, "name": name, "elem": list(members)}}}


def delete_elements(table: Json, name: str, members: Sequence[object]) -> Json:
    """The command that takes elements out of a map or set; they must be in it."""
    return {"delete": {"element": {**table, "name": name, "elem": list(members)}}}


def new_table(table: Json) -> list[Json]:
    """The commands that make a table anew, whether there was one or not."""
    named = {"family": table["family"], "name": table["table"]}
    return [{"add": {"table": named}}, {"delete": {"table": named}}, {"add": {"table": named}}]


def remove_table(table: Json) -> list[Json]:
    """The commands that remove a table, whether there was one or not."""
    return new_table(table)[:2]


def comments(objects: Iterable[Json] | None, table: Json, chain: str) -> list[str]:
    """The comments of a chain's rules in a listing, in their order."""
    return [
        item["rule"].get("comment", "")
        for item in objects or []
        if "rule" in item and _is(item["rule"], table) and item["rule"]["chain"] == chain
    ]


def _is(item: Json, table: Json) -> bool:
    return all(item[key] == value for key, value in table.items())


def _run(commands: Sequence[Json]) -> tuple[int, Json, str]:
    # A context holds a netlink socket of the thread's namespace: one for each call.
    library = nftables.Nftables()
    library.set_json_output(True)
    library.set_stateless_output(True)
    code, output, said = library.cmd(json.dumps({"nftables": list(commands)}))
    return code, json.loads(output) if output else {"nftables": []}, " ".join(said.split())

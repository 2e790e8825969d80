"""What of a site is in Open vSwitch, by the mark in `external_ids`, and its removal."""

from __future__ import annotations

from blocks import marks
from blocks.errors import Conflict
from blocks.fabric.segments.vswitch import Query, Row, Vswitch, quoted
from blocks.inventory import Found

BRIDGE, PORT = "vswitch bridge", "vswitch port"
_TABLES = {PORT: "Port", BRIDGE: "Bridge"}
_COMMANDS = {PORT: "del-port", BRIDGE: "del-br"}


def found(vswitch: Vswitch, site: str) -> list[Found]:
    """Ports and bridges with the site's mark; none where Open vSwitch does not answer.

    What its database holds while its daemons rest carries no frame, and is told again
    when they run.
    """
    if not vswitch.answers():
        return []
    mine = f"external_ids:{marks.VSWITCH_SITE}={quoted(site)}"
    answers = vswitch.ask(
        *(Query(table, ("name", "external_ids"), (mine,)) for table in _TABLES.values())
    )
    return [
        Found(kind=kind, name=row["name"], owner=_owner(row))
        for kind, rows in zip(_TABLES, answers, strict=True)
        for row in sorted(rows, key=lambda row: str(row["name"]))
    ]


def remove(vswitch: Vswitch, site: str, thing: Found) -> None:
    """Remove a port or a bridge; already gone is fine.

    Raises:
        Conflict: By now its name belongs to something with another mark.
    """
    if not vswitch.answers():
        return
    query = Query(_TABLES[thing.kind], ("external_ids",), (f"name={quoted(thing.name)}",))
    [rows] = vswitch.ask(query)
    if not rows:
        return
    ids = rows[0]["external_ids"]
    if (ids.get(marks.VSWITCH_SITE), _owner(rows[0])) != (site, thing.owner):
        raise Conflict(f"the {thing.kind} {thing.name} is not ours: its external_ids are {ids}")
    what = f"Removed the {thing.kind} {thing.name}"
    vswitch.change([(what, [["--if-exists", _COMMANDS[thing.kind], thing.name]])])


def _owner(row: Row) -> str:
    return str(row["external_ids"].get(marks.VSWITCH_OWNER, ""))

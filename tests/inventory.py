"""What is on the host and in the state store: the judge of "nothing is left"."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from sqlalchemy import create_engine, text

#: Tables in which something is given out, and what tells one row from another.
ALLOCATIONS = {
    "addresses": "subnet_id || ' ' || address",
    "ports": "id || ' ' || coalesce(mac, '') || ' ' || coalesce(host, '')",
    "claims": "instance_id",
    "quota_claims": "owner_id || ' ' || resource",
    "segments": "type || ' ' || segment_id",
    "volumes": "id",
    "leases": "build_id",
    "port_groups": "port_id || ' ' || group_id",
}
OUR_PROGRAMS = ("dnsmasq", "metadata_server.py", "qemu-storage-daemon", "qemu-system")


def _lines(*words: str) -> list[str]:
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def _links() -> list[str]:
    found = json.loads("\n".join(_lines("ip", "-json", "-details", "link")) or "[]")
    return sorted(
        f"{link['ifname']} master={link.get('master')} alias={link.get('ifalias')}"
        for link in found
    )


def _nft() -> list[str]:
    ruleset = json.loads("\n".join(_lines("nft", "-j", "list", "ruleset")))
    named = []
    for item in ruleset["nftables"]:
        for kind in ("table", "chain", "map", "set"):
            if kind in item:
                thing = item[kind]
                where = f"{thing['family']} {thing.get('table', '')} {thing['name']}"
                elements = sorted(json.dumps(e) for e in thing.get("elem", []))
                named.append(f"{kind} {where} {elements}")
    return sorted(named)


def _processes(home: Path) -> list[str]:
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if str(home) in command and any(program in command for program in OUR_PROGRAMS):
            found.append(command)
    return sorted(found)


def _files(home: Path) -> list[str]:
    rooms = ("instances", "networks", "volumes", "images/build", "images/exports")
    # dnsmasq's own book of leases, and the locks, are the networks', not the guests'.
    return sorted(
        str(path.relative_to(home))
        for room in rooms
        for path in (home / room).rglob("*")
        if path.name != "leases" and not path.name.endswith(".lock")
    )


def host_inventory(home: Path) -> dict[str, list[str]]:
    """All that a build makes on the host, and all that it holds in the state store."""
    inventory = {
        "domains": sorted(_lines("virsh", "-q", "-c", "qemu:///system", "list", "--all", "--name")),
        "links": _links(),
        "namespaces": sorted(line.split()[0] for line in _lines("ip", "netns")),
        "nft": _nft(),
        "processes": _processes(home),
        "mounts": [line for line in _lines("findmnt", "-rno", "TARGET") if str(home) in line],
        "loops": [line for line in _lines("losetup", "-a") if str(home) in line],
        "files": _files(home),
    }
    engine = create_engine(f"sqlite:///{home / 'state.db'}")
    with engine.connect() as connection:
        for table, columns in ALLOCATIONS.items():
            rows = connection.execute(text(f"SELECT {columns} FROM {table}"))  # noqa: S608
            inventory[f"table {table}"] = sorted(str(row[0]) for row in rows)
    engine.dispose()
    return inventory


def differences(before: dict[str, list[str]], after: dict[str, list[str]]) -> list[str]:
    """What came and what went, a line each."""
    return [
        f"{kind}: {sign} {thing}"
        for kind in before
        for sign, these in (
            ("+", set(after[kind]) - set(before[kind])),
            ("-", set(before[kind]) - set(after[kind])),
        )
        for thing in sorted(these)
    ]

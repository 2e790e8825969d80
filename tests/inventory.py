"""What is on the host and in the state store: the judge of "nothing is left"."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from sqlalchemy import create_engine, text

from blocks.marks import DOMAIN_METADATA_URI, firewall_table

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


def _is_anothers(alias: str | None, site: str) -> bool:
    """Whether an alias is the mark of another site, which may change as it likes."""
    return bool(alias) and str(alias).startswith("fifty:") and str(alias).split(":")[1] != site


def _links(site: str) -> list[str]:
    found = json.loads("\n".join(_lines("ip", "-json", "-details", "link")) or "[]")
    return sorted(
        f"{link['ifname']} master={link.get('master')} alias={link.get('ifalias')}"
        for link in found
        if not _is_anothers(link.get("ifalias"), site)
    )


def _namespaces(site: str) -> list[str]:
    found = []
    for name in sorted(line.split()[0] for line in _lines("ip", "netns")):
        shown = subprocess.run(
            ["ip", "-n", name, "-json", "link", "show", "lo"],
            capture_output=True,
            text=True,
            check=False,
        )
        alias = json.loads(shown.stdout)[0].get("ifalias") if shown.returncode == 0 else None
        if not _is_anothers(alias, site):
            found.append(name)
    return found


def _domains(site: str) -> list[str]:
    names = _lines("virsh", "-q", "-c", "qemu:///system", "list", "--all", "--name")
    found = []
    for name in sorted(filter(None, names)):
        shown = subprocess.run(
            ["virsh", "-q", "-c", "qemu:///system", "dumpxml", name],
            capture_output=True,
            text=True,
            check=False,
        )
        xml = shown.stdout
        if shown.returncode != 0:  # gone since it was listed
            continue
        if DOMAIN_METADATA_URI not in xml or f">{site}<" in xml or f'"{site}"' in xml:
            found.append(name)
    return found


def _nft(site: str) -> list[str]:
    ruleset = json.loads("\n".join(_lines("nft", "-j", "list", "ruleset")))
    named = []
    for item in ruleset["nftables"]:
        for kind in ("table", "chain", "map", "set"):
            if kind in item:
                thing = item[kind]
                table = thing.get("table", thing["name"])
                if table.startswith("fifty_") and table != firewall_table(site):
                    continue
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
        if path.name != "leases" and ".lock" not in path.as_posix()
    )


def host_inventory(home: Path, site: str) -> dict[str, list[str]]:
    """All that a build makes on the host, and all that it holds in the state store.

    Everything counts, marked or not, but for what carries another site's mark.
    """
    inventory = {
        "domains": _domains(site),
        "links": _links(site),
        "namespaces": _namespaces(site),
        "nft": _nft(site),
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

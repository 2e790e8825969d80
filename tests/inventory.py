"""What is on the host and in the state store: the judge of "nothing is left"."""

from __future__ import annotations

import subprocess
from pathlib import Path

from sqlalchemy import text

from blocks.marks import DOMAIN_METADATA_URI
from blocks.state import StateStore
from tests.network_inventory import network_inventory

#: Tables in which something is given out, and what tells one row from another.
ALLOCATIONS = {
    "addresses": "subnet_id || ' ' || address || ' ' || port_id",
    "ports": "id || ' ' || coalesce(mac, '') || ' ' || coalesce(host, '')",
    "port_groups": "port_id || ' ' || group_id",
    "claims": "instance_id || ' ' || vcpus || ' ' || ram_mib || ' ' || disk_gib",
    "quota_claims": "owner_id || ' ' || resource || ' ' || amount",
    "networks": "id",
    "segments": "type || ' ' || segment_id || ' ' || network_id",
    "subnets": "id",
    "routers": "id",
    "floating_ips": "id || ' ' || coalesce(port_id, '') || ' ' || coalesce(former_router_id, '')",
    "volumes": "id",
    "images": "id || ' ' || status",
    "leases": "build_id",
}
#: What goes by itself.
_PASSING = ("conntrack", "table leases")
#: Rooms of FIFTY_HOME whose files come and go with what is built.
ROOMS = ("instances", "networks", "volumes", "images")
#: Packages for images are kept for the next one; so are base images, once they are whole.
KEPT = ("images/packages/", "images/cache/")
#: Empty rooms that stay, once something was in them.
FURNITURE = {f"images/{room}" for room in ("build", "cache", "exports", "packages", "store")}


def _lines(*words: str) -> list[str]:
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


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


def _processes(home: Path) -> list[str]:
    """Every process that has a path in FIFTY_HOME among its arguments, whatever it is."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if f"{home}/" in command:
            found.append(command)
    return sorted(found)


def _files(home: Path) -> list[str]:
    paths = (path for room in ROOMS for path in (home / room).rglob("*"))
    return sorted(
        name
        for name in (str(path.relative_to(home)) for path in paths)
        # dnsmasq's own book of leases, which is looked into, and the locks are the networks'.
        if not name.endswith("/dhcp/leases")
        and ".lock" not in name
        and (not name.startswith(KEPT) or name.endswith(".part"))
        and name not in FURNITURE
    )


def _dhcp_leases(home: Path) -> list[str]:
    """MAC and IP address of each lease that a dnsmasq holds (dnsmasq's leases: time mac ip)."""
    return sorted(
        f"{book.parts[-3]} {' '.join(line.split()[1:3])}"
        for book in (home / "networks").glob("*/dhcp/leases")
        for line in book.read_text().splitlines()
    )


def host_inventory(home: Path, store: StateStore) -> dict[str, list[str]]:
    """All that a build makes on the host, and all that it holds in the state store.

    Everything counts, marked or not, but for what carries another site's mark.
    """
    site = store.site
    inventory = {
        "domains": _domains(site),
        **network_inventory(store),
        "dhcp leases": _dhcp_leases(home),
        "processes": _processes(home),
        # FUSE exports are mounts too, on files in the instances' directories.
        "mounts": [
            line for line in _lines("findmnt", "-rno", "TARGET,FSTYPE") if str(home) in line
        ],
        "loops": [line for line in _lines("losetup", "-a") if str(home) in line],
        "files": _files(home),
    }
    with store.database.read() as session:
        for table, columns in ALLOCATIONS.items():
            rows = session.execute(text(f"SELECT {columns} FROM {table}"))  # noqa: S608
            inventory[f"table {table}"] = sorted(str(row[0]) for row in rows)
    return inventory


def differences(before: dict[str, list[str]], after: dict[str, list[str]]) -> list[str]:
    """What came and what went, a line each.

    A connection that nobody uses is forgotten by the kernel when its time is over, and a
    lease ends with its run: that one went is no difference.
    """
    return [
        f"{kind}: {sign} {thing}"
        for kind in before
        for sign, these in (
            ("+", set(after[kind]) - set(before[kind])),
            ("-", set(before[kind]) - set(after[kind])),
        )
        for thing in sorted(these)
        if sign == "+" or kind not in _PASSING
    ]

"""What a test session left on the host, found and removed with the host's own tools.

Not with the blocks' inventories: what those miss is what is wanted here.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import libvirt

from blocks.commands import run
from blocks.fabric.segments.vswitch import Query, Vswitch
from blocks.marks import NAMESPACE_PREFIX, VSWITCH_SITE, firewall_table, parse_link_alias
from deployments import libvirt_daemons, processes
from tests.waiting import eventually

#: Namespaces and links that a test makes for itself are named `ft`, site, what it likes.
TEST_PREFIX = "ft"


def remove(directory: Path, sites: set[str]) -> list[str]:
    """Remove everything of a session but its daemons and its files.

    Args:
        directory: The session's directory; what has a path in it is the session's.
        sites: The session's sites; what carries their marks is the session's.

    Returns:
        What was there, in words. Empty where the tests removed all that they made.
    """
    return [*_domains(directory), *remove_what_no_reboot_leaves(directory, sites)]


def remove_what_no_reboot_leaves(directory: Path, sites: set[str]) -> list[str]:
    """Remove what lives in the kernel's memory only; files and definitions stay.

    The session's daemons and the process that calls this stay, too.
    """
    return [
        *_processes(directory),
        *_mounts_and_loops(directory),
        *_namespaces(sites),
        *_in_open_vswitch(sites),
        *_links(sites),
        *_tables(sites),
    ]


def _domains(directory: Path) -> list[str]:
    found: list[str] = []
    if not libvirt_daemons.answers():
        return found
    connection = libvirt.open(libvirt_daemons.URI)
    try:
        for domain in connection.listAllDomains():
            try:
                if f"{directory}/" not in domain.XMLDesc():
                    continue
                found.append(f"domain {domain.name()}")
                if domain.isActive():
                    domain.destroy()
                if domain.isPersistent():
                    domain.undefineFlags(
                        libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
                        | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
                    )
            except libvirt.libvirtError as error:
                # Another session's may go while it is looked at.
                if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                    raise
    finally:
        connection.close()
    return found


def _processes(directory: Path) -> list[str]:
    """Processes with a path of the session in their arguments, but its daemons and us."""
    homes = (file.parent for file in directory.rglob("daemons.json"))
    kept = {os.getpid(), *(_server_pid(home) for home in homes)}
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        pid = int(entry.name)
        words = processes.command_line(pid)
        if pid in kept or not any(f"{directory}/" in word for word in words):
            continue
        process = processes.identify(pid)
        if process and not _is_ancestor(pid):
            found.append(f"process {pid}: {' '.join(words)[:120]}")
            processes.stop(process)
    return found


def _server_pid(home: Path) -> int:
    content: dict[str, Any] = json.loads((home / "daemons.json").read_text())
    return int(content["process"]["pid"])


def _is_ancestor(pid: int) -> bool:
    """Whether the process is one that we descend from (a shell, pytest itself)."""
    ancestor = os.getpid()
    while ancestor > 1:
        if ancestor == pid:
            return True
        status = Path(f"/proc/{ancestor}/stat").read_text()
        ancestor = int(status.rpartition(")")[2].split()[1])
    return False


def _mounts_and_loops(directory: Path) -> list[str]:
    found = []
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in sorted((m for m in mounts if m.startswith(f"{directory}/")), reverse=True):
        found.append(f"mount {mount}")
        run("umount", "--lazy", mount)
    return found + _detach(lambda path: path.startswith(f"{directory}/"))


def _detach(is_ours: Callable[[str], bool]) -> list[str]:
    """Detach the loop devices of which the file's path is ours."""
    found = []
    listed = run("losetup", "--json", "--list", "--output", "NAME,BACK-FILE").stdout
    for loop in json.loads(listed)["loopdevices"] if listed else []:
        if is_ours(str(loop["back-file"])):
            found.append(f"loop device {loop['name']} of {loop['back-file']}")
            run("losetup", "--detach", loop["name"])
    return found


def remove_lane(lane: Path) -> list[str]:
    """Remove what a lane leaves where its end took everything that lived in its namespaces.

    Returns:
        What of it is not a file, in words.
    """
    sessions = {f"/{path.name}/" for path in (lane / "var-tmp").glob("fifty-tests-*")}
    # They are told from within the lane: the beginning of the path is another one.
    found = _detach(lambda path: any(session in path for session in sessions))
    # A killed lane's processes end one after the other, and some may be making files.
    eventually(lambda: _is_removed(lane), f"end of what is in {lane}")
    return found


def _is_removed(directory: Path) -> bool:
    shutil.rmtree(directory, ignore_errors=True)
    return not directory.exists()


def _has_mark(link: dict[str, Any], sites: set[str]) -> bool:
    mark = parse_link_alias(link.get("ifalias", ""))
    if mark and mark[0] in sites:
        return True
    return any(link["ifname"].startswith(f"{TEST_PREFIX}{site}") for site in sites)


def _links(sites: set[str]) -> list[str]:
    found = []
    for link in json.loads(run("ip", "-json", "link", "show").stdout):
        if _has_mark(link, sites):
            found.append(f"link {link['ifname']}")
            # The other end of a pair goes with it, and so may be gone already.
            run("ip", "link", "delete", link["ifname"], ok_codes=(0, 1))
    return found


def _namespaces(sites: set[str]) -> list[str]:
    found = []
    listed = run("ip", "-json", "netns", "list").stdout
    for name in [entry["name"] for entry in json.loads(listed or "[]")]:
        ours = any(name.startswith(f"{TEST_PREFIX}{site}") for site in sites)
        if name.startswith(NAMESPACE_PREFIX):
            said = run("ip", "-json", "-netns", name, "link", "show", ok_codes=(0, 1, 255)).stdout
            ours = any(_has_mark(link, sites) for link in json.loads(said or "[]"))
        if ours:
            found.append(f"namespace {name}")
            run("ip", "netns", "delete", name)
    return found


def _in_open_vswitch(sites: set[str]) -> list[str]:
    """Ports and bridges in this host's Open vSwitch, the system's or our own."""
    found: list[str] = []
    vswitch = Vswitch()
    if not vswitch.answers():
        return found
    tables = {"Port": "del-port", "Bridge": "del-br"}
    answers = vswitch.ask(*(Query(table, ("name", "external_ids")) for table in tables))
    for (table, command), rows in zip(tables.items(), answers, strict=True):
        for row in rows:
            if row["external_ids"].get(VSWITCH_SITE) in sites:
                found.append(f"Open vSwitch {table.lower()} {row['name']}")
                run("ovs-vsctl", f"--db=unix:{vswitch.directory}/db.sock", command, row["name"])
    return found


def _tables(sites: set[str]) -> list[str]:
    found = []
    wanted = {firewall_table(site) for site in sites}
    for item in json.loads(run("nft", "--json", "list", "tables").stdout)["nftables"]:
        table = item.get("table")
        if table and table["name"] in wanted:
            found.append(f"nft table {table['family']} {table['name']}")
            run("nft", "delete", "table", table["family"], table["name"])
    return found

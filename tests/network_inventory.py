"""What of the network is on the host: in its own namespace, and in ours."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Any

from blocks.fabric.segments.vswitch import Query, Vswitch
from blocks.marks import VSWITCH_SITE, firewall_table
from blocks.state import StateStore

Json = dict[str, Any]
#: What of a rule, a set or a map changes by itself.
_RESTLESS = ("handle", "packets", "bytes", "expires")
_TUPLE = re.compile(r"src=(\S+) dst=(\S+).*\bzone=(\d+)")


def network_inventory(store: StateStore) -> dict[str, list[str]]:
    """Links, addresses, routes, namespaces with what is in them, nftables and conntrack."""
    site = store.site
    namespaces = sorted(_namespaces(site))
    return {
        "links": _links(site),
        "namespaces": namespaces,
        "in namespaces": sorted(thing for name in namespaces for thing in _inside(name)),
        "nft": [line for line in _nft([]) if not _is_anothers_table(line, site)],
        "open vswitch": _in_open_vswitch(site),
        "conntrack": _forgotten_connections(store),
    }


def _run(*words: str) -> str | None:
    """What a command says; None where it fails, as what it looks at has gone meanwhile."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else None


def _json(*words: str) -> Any:  # noqa: ANN401 - any JSON
    return json.loads(_run(*words) or "[]")


def _is_anothers(alias: str | None, site: str) -> bool:
    """Whether an alias is the mark of another site, which may change as it likes."""
    return bool(alias) and str(alias).startswith("fifty:") and str(alias).split(":")[1] != site


def _link(link: Json) -> str:
    addresses = sorted(
        f"{one['local']}/{one['prefixlen']}"
        for one in link.get("addr_info", [])
        # The kernel makes link-local ones by itself, some time after the link is up.
        if one["scope"] != "link"
    )
    words = (link["ifname"], f"master={link.get('master')}", f"alias={link.get('ifalias')}")
    return " ".join((*words, *addresses))


def _links(site: str) -> list[str]:
    """Links with their bridges, marks and addresses."""
    found = _json("ip", "-json", "-details", "address")
    return sorted(_link(link) for link in found if not _is_anothers(link.get("ifalias"), site))


def _in_open_vswitch(site: str) -> list[str]:
    """Bridges with their ports, and what these are; nothing where none runs."""
    vswitch = Vswitch()
    if not vswitch.answers():
        return []
    bridges, ports, interfaces = vswitch.ask(
        Query("Bridge", ("name", "datapath_type", "external_ids")),
        Query("Port", ("name", "tag", "protected", "external_ids")),
        Query("Interface", ("name", "type", "options", "external_ids")),
    )
    return sorted(
        f"{table} {json.dumps(row, sort_keys=True)}"
        for table, rows in (("bridge", bridges), ("port", ports), ("interface", interfaces))
        for row in rows
        if row["external_ids"].get(VSWITCH_SITE, site) == site
    )


def _namespaces(site: str) -> Iterator[str]:
    for line in (_run("ip", "netns") or "").splitlines():
        name = line.split()[0]
        lo = _json("ip", "-n", name, "-json", "link", "show", "lo")
        if not lo or not _is_anothers(lo[0].get("ifalias"), site):
            yield name


def _inside(namespace: str) -> Iterator[str]:
    """Links, addresses, routes and firewall of a namespace."""
    for link in _json("ip", "-n", namespace, "-json", "-details", "address"):
        yield f"{namespace} link {_link(link)}"
    for route in _json("ip", "-n", namespace, "-json", "route"):
        yield f"{namespace} route {json.dumps(route, sort_keys=True)}"
    for line in _nft(["ip", "netns", "exec", namespace]):
        yield f"{namespace} {line}"


def _is_anothers_table(line: str, site: str) -> bool:
    table = line.split()[2]
    return table.startswith("fifty_") and table != firewall_table(site)


def _nft(prefix: list[str]) -> list[str]:
    """Tables, chains, rules, sets and maps with their elements; `kind family table ...`."""
    ruleset = _json(*prefix, "nft", "--json", "list", "ruleset")
    found = []
    for item in ruleset["nftables"] if ruleset else []:
        for kind, thing in item.items():
            if kind != "metainfo":
                table = thing["name"] if kind == "table" else thing["table"]
                said = json.dumps(_at_rest(thing), sort_keys=True)
                found.append(f"{kind} {thing['family']} {table} {said}")
    return sorted(found)


def _at_rest(thing: Any) -> Any:  # noqa: ANN401 - any JSON
    """A part of the ruleset, without counters and handles, elements in order."""
    if isinstance(thing, dict):
        kept = {key: _at_rest(value) for key, value in thing.items() if key not in _RESTLESS}
        if isinstance(kept.get("elem"), list):
            kept["elem"] = sorted(kept["elem"], key=json.dumps)
        return kept
    return [_at_rest(each) for each in thing] if isinstance(thing, list) else thing


def _forgotten_connections(store: StateStore) -> list[str]:
    """Connections in our networks' zones with an address that no port has (any more)."""
    zones = {network.zone: network.id for network in store.networks.list()}
    subnets = {one: store.networks.subnets(one) for one in zones.values()}
    held = {
        (port.network_id, fixed.address) for port in store.ports.list() for fixed in port.addresses
    }
    found = set()
    for line in (_run("conntrack", "-L", "-o", "extended") or "").splitlines():
        known = _TUPLE.search(line)
        network = zones.get(int(known[3])) if known else None
        if known is None or network is None:
            continue
        for address in (IPv4Address(known[1]), IPv4Address(known[2])):
            of_guests = any(address in subnet.cidr for subnet in subnets[network])
            if of_guests and (network, address) not in held:
                found.add(f"zone {known[3]}: {address}")
    return sorted(found)

"""`fifty network`: look at and delete networks (`network_create` makes them)."""

from __future__ import annotations

from typing import Any

from deployments.cli import documents, network_views, output
from deployments.cli.context import AllTenants, Credentials, Flag, Json, request_of, require_root
from deployments.cli.flow_runs import run_flow
from deployments.cli.scope import open_scope, with_tenants


def list(
    *, all_tenants: AllTenants = False, credentials: Credentials = None, json: Json = False
) -> None:
    """List the networks: the tenant's, and the external ones."""
    scope = open_scope(credentials)
    networks = scope.store.networks.list(scope.tenant(all_tenants=all_tenants))
    found = with_tenants(
        scope, [documents.network(scope.store, network) for network in networks], all_tenants
    )
    if json:
        output.document(found)
        return
    output.things(
        ("NAME", "TYPE", "SEGMENT", "CIDR", "GATEWAY", "DHCP", "OUTSIDE"),
        (
            (
                item["name"],
                item["type"],
                item["segment_id"],
                _joined(item, "cidr"),
                _joined(item, "gateway"),
                _joined(item, "dhcp_address"),
                item["outside"] if item["external"] else None,
            )
            for item in found
        ),
        found,
        "There is no network yet. `fifty network create NAME --cidr CIDR` makes one.",
    )


def _joined(item: dict[str, Any], field: str) -> str | None:
    values = [subnet[field] for subnet in item["subnets"] if subnet[field]]
    return ", ".join(values) or None


def show(
    name: str | None = None,
    /,
    *,
    check: Flag = False,
    topology: Flag = False,
    credentials: Credentials = None,
    json: Json = False,
) -> int:
    """Show a network, or what of it is not on this host as recorded, or a picture of it.

    With --check it exits 0 when all is as recorded, 3 when something is not.

    Args:
        name: The network's name or id; --check and --topology without one take all.
        check: Compare the host with the record, and tell the differences.
        topology: Draw its routers and VMs: a tree on a terminal, else Mermaid.
    """
    network_views.require_name(name, check=check, topology=topology)
    scope = open_scope(credentials)
    if check:
        return network_views.check(scope, network_views.networks_of(scope, name), json=json)
    if topology:
        network_views.draw(scope, name, json=json)
    elif name is not None:
        tell(name, credentials, json=json)
    return 0


def tell(name: str, credentials: str | None, *, json: bool) -> None:
    """Print a network, for a person or as JSON."""
    scope = open_scope(credentials)
    seen_by = None if scope.is_admin else scope.caller.tenant_id
    found = documents.network_in_full(scope.store, scope.network(name), seen_by)
    if json:
        output.document(found)
        return
    output.facts(
        (
            ("name", found["name"]),
            ("id", found["id"]),
            ("type", f"{found['type']}, by {found['driver']}"),
            ("segment", found["segment_id"]),
            ("MTU", found["mtu"]),
            ("outside", found["outside"] if found["external"] else None),
            ("cidr", _joined(found, "cidr")),
            ("gateway", _joined(found, "gateway")),
            ("DHCP server", _joined(found, "dhcp_address")),
            *(("DNS", ", ".join(subnet["dns"])) for subnet in found["subnets"]),
            *(("pool", f"{p['first']}-{p['last']}") for s in found["subnets"] for p in s["pools"]),
            *(("route", _route(route)) for s in found["subnets"] for route in s["host_routes"]),
            ("port security", None if found["port_security"] else "off"),
            ("router", found["router"]),
            *(("port", _port(port)) for port in found["ports"]),
        )
    )


def _route(route: dict[str, Any]) -> str:
    return f"{route['destination']} by {route['nexthop']}"


def _port(port: dict[str, Any]) -> str:
    return f"{', '.join(port['addresses']) or 'no address'}, {port['kind']}, {port['mac']}"


def delete(
    name: str,
    /,
    *,
    credentials: Credentials = None,
    json: Json = False,
) -> None:
    """Delete a network in which there is no VM any more.

    Args:
        name: The network's name or id.
    """
    require_root("deleting a network")
    request = request_of(credentials, name=name)
    run_flow("delete_network", request).require_success()
    if json:
        output.document({"name": name, "deleted": True})
    else:
        output.say(f"The network {output.plain(name)} is deleted.")

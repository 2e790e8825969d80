"""`fifty network`: make, look at and delete networks."""

from __future__ import annotations

from typing import Any, Literal

from deployments.cli import documents, output
from deployments.cli.context import (
    AllTenants,
    Credentials,
    Flag,
    Json,
    Several,
    credentials_name,
    require_root,
)
from deployments.cli.detaching import Detach, send
from deployments.cli.files import Findings
from deployments.cli.flow_runs import run_flow
from deployments.cli.scope import open_scope, with_tenants


def create(
    name: str,
    /,
    *,
    cidr: str,
    type: Literal["flat", "local", "vxlan"] = "vxlan",
    segment: str | None = None,
    gateway: str | None = None,
    dns: Several = None,
    pool: str | None = None,
    no_dhcp: Flag = False,
    external: Flag = False,
    outside: Literal["closed", "uplink", "bridge"] | None = None,
    physical_bridge: str | None = None,
    router: str | None = None,
    external_network: str | None = None,
    detach: Detach = False,
    credentials: Credentials = None,
    json: Json = False,
) -> None:
    """Make a network with one subnet.

    Args:
        name: Its name.
        cidr: Its IPv4 addresses, such as 192.168.0.0/24.
        type: How it is told from the others on the wire.
        segment: Its VNI, for vxlan; chosen where not given.
        gateway: Its gateway's address (default: the first one).
        dns: A name server for its guests; can be given several times.
        pool: FIRST-LAST, the addresses that may be given out (default: all).
        no_dhcp: No DHCP server.
        external: A network outside, for routers' gateways; admins only.
        outside: What an external network leads to (default: closed).
        physical_bridge: For flat: a bridge of this host that is there already.
        router: Attach it to this router, which is made if it is not there.
        external_network: Give that router its gateway in this network.
    """
    findings = Findings()
    number = findings.whole("--segment", segment) if segment is not None else None
    findings.refuse()
    wanted = {
        "name": name,
        "cidr": cidr,
        "type": type,
        "segment": number,
        "gateway": gateway,
        "dns": dns,
        "pool": pool,
        "dhcp": False if no_dhcp else None,
        "external": external or None,
        "outside": outside,
        "physical_bridge": physical_bridge,
        "router": router,
        "external_network": external_network,
        "credentials": credentials_name(credentials),
    }
    request = {key: value for key, value in wanted.items() if value is not None}
    if detach:
        send("create-network", request, json=json, look="fifty network list")
        return
    require_root("making a network")
    run_flow("create_network", request).require_success()
    _tell(name, credentials, json=json)


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


def show(name: str, /, *, credentials: Credentials = None, json: Json = False) -> None:
    """Show a network.

    Args:
        name: The network's name or id.
    """
    _tell(name, credentials, json=json)


def _tell(name: str, credentials: str | None, *, json: bool) -> None:
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
            ("type", found["type"]),
            ("segment", found["segment_id"]),
            ("MTU", found["mtu"]),
            ("outside", found["outside"] if found["external"] else None),
            ("cidr", _joined(found, "cidr")),
            ("gateway", _joined(found, "gateway")),
            ("DHCP server", _joined(found, "dhcp_address")),
            *(("DNS", ", ".join(subnet["dns"])) for subnet in found["subnets"]),
            *(("pool", f"{p['first']}-{p['last']}") for s in found["subnets"] for p in s["pools"]),
            ("router", found["router"]),
            *(("port", _port(port)) for port in found["ports"]),
        )
    )


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
    request = {"name": name, "credentials": credentials_name(credentials)}
    run_flow("delete_network", request).require_success()
    if json:
        output.document({"name": name, "deleted": True})
    else:
        output.say(f"The network {output.plain(name)} is deleted.")

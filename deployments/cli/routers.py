"""`fifty router`: make, connect, look at and delete routers."""

from __future__ import annotations

from typing import Any, Literal

from deployments.cli import documents, output
from deployments.cli.context import AllTenants, Credentials, Json, Several, request_of, require_root
from deployments.cli.files import Findings
from deployments.cli.flow_runs import run_flow
from deployments.cli.scope import open_scope, with_tenants


def create(name: str, /, *, credentials: Credentials = None, json: Json = False) -> None:
    """Make a router without any interface.

    Args:
        name: Its name.
    """
    _change("create", name, credentials, json=json)


def add_interface(
    name: str, network: str, /, *, credentials: Credentials = None, json: Json = False
) -> None:
    """Put a router into a network, at the gateway's address.

    Args:
        name: The router's name or id.
        network: The network's name or id.
    """
    _change("add-interface", name, credentials, json=json, network=network)


def remove_interface(
    name: str, network: str, /, *, credentials: Credentials = None, json: Json = False
) -> None:
    """Take a router out of a network.

    Args:
        name: The router's name or id.
        network: The network's name or id.
    """
    _change("remove-interface", name, credentials, json=json, network=network)


def set_gateway(
    name: str,
    network: str,
    /,
    *,
    snat: Literal["on", "off"] | None = None,
    credentials: Credentials = None,
    json: Json = False,
) -> None:
    """Connect a router to the outside.

    Args:
        name: The router's name or id.
        network: The external network's name or id.
        snat: Whether what goes out gets the gateway's address (default: as it is; on).
    """
    wanted = None if snat is None else snat == "on"
    _change("set-gateway", name, credentials, json=json, network=network, snat=wanted)


def clear_gateway(name: str, /, *, credentials: Credentials = None, json: Json = False) -> None:
    """Cut a router off from the outside.

    Args:
        name: The router's name or id.
    """
    _change("clear-gateway", name, credentials, json=json)


def set_routes(
    name: str,
    /,
    *,
    route: Several = None,
    credentials: Credentials = None,
    json: Json = False,
) -> None:
    """Set a router's static routes; those that are not given go.

    Args:
        name: The router's name or id.
        route: CIDR=ADDRESS, where to and by whom; can be given several times.
    """
    findings = Findings()
    routes = [findings.route("--route", text) for text in route or ()]
    findings.refuse()
    _change("set-routes", name, credentials, json=json, routes=routes)


def delete(name: str, /, *, credentials: Credentials = None, json: Json = False) -> None:
    """Delete a router.

    Args:
        name: The router's name or id.
    """
    _change("delete", name, credentials, json=json)


def _change(
    action: str,
    name: str,
    credentials: str | None,
    *,
    json: bool,
    **more: Any,  # noqa: ANN401 - fields of many types
) -> None:
    require_root("changing a router")
    request = request_of(credentials, action=action, name=name, **more)
    run_flow("change_router", request).require_success()
    if action != "delete":
        _tell(name, credentials, json=json)
    elif json:
        output.document({"name": name, "deleted": True})
    else:
        output.say(f"The router {output.plain(name)} is deleted.")


def list(
    *, all_tenants: AllTenants = False, credentials: Credentials = None, json: Json = False
) -> None:
    """List the routers."""
    scope = open_scope(credentials)
    routers = scope.store.routers.list(scope.tenant(all_tenants=all_tenants))
    found = with_tenants(scope, [documents.router(router) for router in routers], all_tenants)
    if json:
        output.document(found)
        return
    output.things(
        ("NAME", "HOST", "INTERFACES", "GATEWAY"),
        (
            (
                item["name"],
                item["host"],
                ", ".join(_leg(leg) for leg in item["interfaces"]) or None,
                _leg(item["gateway"]) if item["gateway"] else None,
            )
            for item in found
        ),
        found,
        "There is no router yet. `fifty router create NAME` makes one.",
    )


def _leg(leg: dict[str, Any]) -> str:
    return f"{leg['network']} {leg['address']}"


def show(name: str, /, *, credentials: Credentials = None, json: Json = False) -> None:
    """Show a router.

    Args:
        name: The router's name or id.
    """
    _tell(name, credentials, json=json)


def _tell(name: str, credentials: str | None, *, json: bool) -> None:
    found = documents.router(open_scope(credentials).router(name))
    if json:
        output.document(found)
        return
    output.facts(
        (
            ("name", found["name"]),
            ("id", found["id"]),
            ("host", found["host"]),
            ("SNAT", "yes" if found["snat"] else "no"),
            *(("interface", f"{_leg(leg)} ({leg['mac']})") for leg in found["interfaces"]),
            ("gateway", _leg(found["gateway"]) if found["gateway"] else None),
            *(("route", f"{r['destination']} by {r['nexthop']}") for r in found["routes"]),
            *(
                ("floating IP", f"{each['address']} to {each['fixed_address']}")
                for each in found["floating_ips"]
            ),
        )
    )

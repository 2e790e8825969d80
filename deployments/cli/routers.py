"""`fifty router`: make, connect, look at and delete routers."""

from __future__ import annotations

from typing import Any

from deployments.cli import documents, output
from deployments.cli.context import (
    AllTenants,
    Credentials,
    Json,
    credentials_name,
    require_root,
)
from deployments.cli.flow_runs import run_flow
from deployments.cli.scope import open_scope, with_tenants


def create(name: str, /, *, credentials: Credentials = None, json: Json = False) -> None:
    """Make a router without any interface.

    Args:
        name: Its name.
    """
    _change("create", name, None, credentials, json=json)


def add_interface(
    name: str, network: str, /, *, credentials: Credentials = None, json: Json = False
) -> None:
    """Put a router into a network, at the gateway's address.

    Args:
        name: The router's name or id.
        network: The network's name or id.
    """
    _change("add-interface", name, network, credentials, json=json)


def set_gateway(
    name: str, network: str, /, *, credentials: Credentials = None, json: Json = False
) -> None:
    """Connect a router to the outside.

    Args:
        name: The router's name or id.
        network: The external network's name or id.
    """
    _change("set-gateway", name, network, credentials, json=json)


def clear_gateway(name: str, /, *, credentials: Credentials = None, json: Json = False) -> None:
    """Cut a router off from the outside.

    Args:
        name: The router's name or id.
    """
    _change("clear-gateway", name, None, credentials, json=json)


def delete(name: str, /, *, credentials: Credentials = None, json: Json = False) -> None:
    """Delete a router.

    Args:
        name: The router's name or id.
    """
    _change("delete", name, None, credentials, json=json)


def _change(
    action: str, name: str, network: str | None, credentials: str | None, *, json: bool
) -> None:
    require_root("changing a router")
    request = {"action": action, "name": name, "credentials": credentials_name(credentials)}
    if network is not None:
        request["network"] = network
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
        )
    )

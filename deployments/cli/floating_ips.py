"""`fifty floating-ip`: take, attach, look at and give back addresses outside."""

from __future__ import annotations

import uuid
from typing import Any

from deployments.cli import documents, output
from deployments.cli.context import AllTenants, Credentials, Json, request_of, require_root
from deployments.cli.flow_runs import run_flow
from deployments.cli.scope import open_scope, with_tenants


def create(
    network: str,
    /,
    *,
    address: str | None = None,
    credentials: Credentials = None,
    json: Json = False,
) -> None:
    """Take an address of an external network.

    Args:
        network: The external network's name or id.
        address: The address that is wanted (default: a free one).
    """
    identifier = str(uuid.uuid4())
    _change("create", credentials, name=address, network=network, id=identifier)
    _tell(identifier, credentials, json=json)


def attach(
    address: str,
    vm: str | None = None,
    /,
    *,
    port: str | None = None,
    fixed_ip: str | None = None,
    credentials: Credentials = None,
    json: Json = False,
) -> None:
    """Let it lead to a VM; one that leads elsewhere is moved.

    Args:
        address: The floating IP's address or id.
        vm: The VM's name or id.
        port: Instead of the VM: the id of its port, where it has several.
        fixed_ip: The address of the VM that it leads to, where it has several.
    """
    _change("attach", credentials, name=address, vm=vm, port=port, fixed_ip=fixed_ip)
    _tell(address, credentials, json=json)


def detach(address: str, /, *, credentials: Credentials = None, json: Json = False) -> None:
    """Let it lead nowhere; connections through it end.

    Args:
        address: The floating IP's address or id.
    """
    _change("detach", credentials, name=address)
    _tell(address, credentials, json=json)


def delete(address: str, /, *, credentials: Credentials = None, json: Json = False) -> None:
    """Give it back.

    Args:
        address: The floating IP's address or id.
    """
    _change("delete", credentials, name=address)
    if json:
        output.document({"address": address, "deleted": True})
    else:
        output.say(f"The floating IP {output.plain(address)} is deleted.")


def _change(action: str, credentials: str | None, **more: str | None) -> None:
    require_root("changing a floating IP")
    request = request_of(credentials, action=action, **more)
    run_flow("change_floating_ip", request).require_success()


def list(
    *, all_tenants: AllTenants = False, credentials: Credentials = None, json: Json = False
) -> None:
    """List the floating IPs."""
    scope = open_scope(credentials)
    things = scope.store.floating_ips.list(scope.tenant(all_tenants=all_tenants))
    found = with_tenants(
        scope, [documents.floating_ip(scope.store, thing) for thing in things], all_tenants
    )
    if json:
        output.document(found)
        return
    output.things(
        ("ADDRESS", "NETWORK", "VM", "FIXED ADDRESS", "ROUTER"),
        (
            (item["address"], item["network"], item["vm"], item["fixed_address"], item["router"])
            for item in found
        ),
        found,
        "There is no floating IP yet. `fifty floating-ip create NETWORK` takes one.",
    )


def _tell(name: str, credentials: str | None, *, json: bool) -> None:
    scope = open_scope(credentials)
    found: dict[str, Any] = documents.floating_ip(scope.store, scope.floating_ip(name))
    if json:
        output.document(found)
        return
    output.facts(
        (
            ("address", found["address"]),
            ("id", found["id"]),
            ("network", found["network"]),
            ("VM", found["vm"]),
            ("fixed address", found["fixed_address"]),
            ("router", found["router"]),
        )
    )

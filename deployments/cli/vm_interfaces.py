"""`fifty vm attach-interface` and its kin: the ports of a VM that is there."""

from __future__ import annotations

import uuid
from typing import Any, Literal

from deployments.cli import output
from deployments.cli.context import Credentials, Json, Several, request_of, require_root
from deployments.cli.flow_runs import run_flow
from deployments.cli.scope import open_scope


def attach_interface(
    name: str,
    network: str,
    /,
    *,
    fixed_ip: str | None = None,
    security_group: Several = None,
    credentials: Credentials = None,
    json: Json = False,
) -> None:
    """Plug a VM into a network more.

    Args:
        name: The VM's name or id.
        network: The network's name or id.
        fixed_ip: The address that is wanted (default: a free one).
        security_group: A group for the new port (default: default); several times.
    """
    port = str(uuid.uuid4())
    wanted = {"network": network, "fixed_ip": fixed_ip, "security_groups": security_group}
    _change("attach", name, credentials, id=port, **wanted)
    _tell(name, credentials, json=json)


def detach_interface(
    name: str, port: str, /, *, credentials: Credentials = None, json: Json = False
) -> None:
    """Unplug a VM from a network.

    Args:
        name: The VM's name or id.
        port: The port's id, address or MAC address (`fifty vm show`).
    """
    _change("detach", name, credentials, port=port)
    _tell(name, credentials, json=json)


def set_interface(
    name: str,
    port: str,
    /,
    *,
    security_group: Several = None,
    port_security: Literal["on", "off"] | None = None,
    credentials: Credentials = None,
    json: Json = False,
) -> None:
    """Set the security groups of a VM's port, or turn its port security on or off.

    Args:
        name: The VM's name or id.
        port: The port's id, address or MAC address (`fifty vm show`).
        security_group: A group that it is to be in, and in no others; several times.
        port_security: Anti-spoofing and security groups; admins only.
    """
    on = None if port_security is None else port_security == "on"
    wanted = {"security_groups": security_group, "port_security": on}
    _change("set", name, credentials, port=port, **wanted)
    _tell(name, credentials, json=json)


def _change(
    action: str,
    name: str,
    credentials: str | None,
    **more: Any,  # noqa: ANN401 - fields of many types
) -> None:
    require_root("changing a VM's ports")
    request = request_of(credentials, action=action, name=name, **more)
    run_flow("change_port", request).require_success()


def _tell(name: str, credentials: str | None, *, json: bool) -> None:
    scope = open_scope(credentials)
    instance = scope.vm(name)
    found = [plug.model_dump() for plug in scope.store.plugs.of(instance.id)]
    if json:
        output.document({"id": instance.id, "name": instance.name, "addresses": found})
        return
    output.facts(
        (
            ("name", instance.name),
            *(
                ("address", f"{plug['address']} in {plug['network']}, {plug['mac']}")
                for plug in found
            ),
        )
    )

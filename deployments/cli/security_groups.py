"""`fifty security-group`: make groups, change their rules, look at and delete them."""

from __future__ import annotations

from typing import Any, Literal

from deployments.cli import documents, output
from deployments.cli.context import AllTenants, Credentials, Json, request_of, require_root
from deployments.cli.files import Findings
from deployments.cli.flow_runs import run_flow
from deployments.cli.scope import open_scope, with_tenants


def create(name: str, /, *, credentials: Credentials = None, json: Json = False) -> None:
    """Make a group that lets everything out, and nothing in.

    Args:
        name: Its name.
    """
    _change("create", name, credentials)
    _tell(name, credentials, json=json)


def add_rule(
    name: str,
    /,
    *,
    direction: Literal["ingress", "egress"] = "ingress",
    protocol: Literal["tcp", "udp", "icmp"] | None = None,
    port: str | None = None,
    icmp_type: str | None = None,
    icmp_code: str | None = None,
    cidr: str | None = None,
    remote_group: str | None = None,
    credentials: Credentials = None,
    json: Json = False,
) -> None:
    """Let something pass, at once.

    Args:
        name: The group's name or id.
        direction: Into the guests, or out of them.
        protocol: By default all.
        port: PORT or FIRST-LAST, of tcp or udp (default: all).
        icmp_type: A number (default: all).
        icmp_code: A number (default: all of the type).
        cidr: The other end (default: anyone).
        remote_group: The other end is any member of this group.
    """
    findings = Findings()
    first, last = findings.ports("--port", port) if port is not None else (None, None)
    numbers = {
        "icmp_type": findings.whole("--icmp-type", icmp_type) if icmp_type is not None else None,
        "icmp_code": findings.whole("--icmp-code", icmp_code) if icmp_code is not None else None,
    }
    findings.refuse()
    _change(
        "add-rule",
        name,
        credentials,
        direction=direction,
        protocol=protocol,
        port_min=first,
        port_max=last,
        remote_cidr=cidr,
        remote_group=remote_group,
        **numbers,
    )
    _tell(name, credentials, json=json)


def remove_rule(
    name: str, rule: str, /, *, credentials: Credentials = None, json: Json = False
) -> None:
    """Let something pass no more, at once; open connections end.

    Args:
        name: The group's name or id.
        rule: The rule's id (`fifty security-group show` tells them).
    """
    _change("remove-rule", name, credentials, rule=rule)
    _tell(name, credentials, json=json)


def delete(name: str, /, *, credentials: Credentials = None, json: Json = False) -> None:
    """Delete a group in which there is no VM.

    Args:
        name: The group's name or id.
    """
    _change("delete", name, credentials)
    if json:
        output.document({"name": name, "deleted": True})
    else:
        output.say(f"The security group {output.plain(name)} is deleted.")


def _change(action: str, name: str, credentials: str | None, **more: str | int | None) -> None:
    require_root("changing a security group")
    request = request_of(credentials, action=action, name=name, **more)
    run_flow("change_security_group", request).require_success()


def list(
    *, all_tenants: AllTenants = False, credentials: Credentials = None, json: Json = False
) -> None:
    """List the security groups."""
    scope = open_scope(credentials)
    groups = scope.store.groups.list(scope.tenant(all_tenants=all_tenants))
    found = with_tenants(
        scope, [documents.security_group(scope.store, group) for group in groups], all_tenants
    )
    if json:
        output.document(found)
        return
    output.things(
        ("NAME", "RULES", "PORTS"),
        ((item["name"], len(item["rules"]), len(item["ports"])) for item in found),
        found,
        "There is no security group. `fifty security-group create NAME` makes one.",
    )


def show(name: str, /, *, credentials: Credentials = None, json: Json = False) -> None:
    """Show a security group.

    Args:
        name: The group's name or id.
    """
    _tell(name, credentials, json=json)


def _tell(name: str, credentials: str | None, *, json: bool) -> None:
    scope = open_scope(credentials)
    found = documents.security_group(scope.store, scope.security_group(name))
    if json:
        output.document(found)
        return
    output.facts(
        (
            ("name", found["name"]),
            ("id", found["id"]),
            *(("rule", f"{_rule(rule)} ({rule['id']})") for rule in found["rules"]),
            *(("port", port) for port in found["ports"]),
        )
    )


def _rule(rule: dict[str, Any]) -> str:
    words = [rule["direction"], rule["protocol"] or "all"]
    first, last = rule["port_min"], rule["port_max"]
    if rule["protocol"] == "icmp" and first is not None:
        words.append(f"type {first}" + ("" if last is None else f" code {last}"))
    elif first is not None:
        words.append(f"port {first}" if first == last else f"ports {first}-{last}")
    other = rule["remote_cidr"] or (rule["remote_group"] and f"group {rule['remote_group']}")
    if other:
        words.append(f"{'from' if rule['direction'] == 'ingress' else 'to'} {other}")
    return " ".join(words)

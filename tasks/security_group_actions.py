"""The changes to a security group: recorded, then applied to the members on this host at once."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence

from blocks.changes import record
from blocks.errors import InvalidRequest, NotFound
from blocks.resources import (
    PortBinding,
    SecurityGroup,
    SecurityGroupRequest,
    SecurityGroupRule,
)
from blocks.state import Caller, StateStore
from blocks.world import World
from tasks.policy import allows
from tasks.port_bindings import protected

_OF_A_RULE = (
    *("protocol", "port_min", "port_max", "icmp_type", "icmp_code"),
    *("remote_cidr", "remote_group"),
)


def wrong(request: SecurityGroupRequest) -> Sequence[str]:
    """What of a security group request does not go together, a line each."""
    lines = []
    action = request.action
    if action == "remove-rule" and request.rule is None:
        lines.append("rule: remove-rule needs the rule's id")
    if action in ("create", "delete") and request.rule is not None:
        lines.append(f"rule: {action} takes none")
    if action != "add-rule":
        given = [field for field in _OF_A_RULE if getattr(request, field) is not None]
        return [*lines, *(f"{field}: {action} takes none" for field in given)]
    return [*lines, *_wrong_rule(request)]


def _wrong_rule(request: SecurityGroupRequest) -> list[str]:
    lines = []
    ports = (request.port_min, request.port_max)
    icmp = (request.icmp_type, request.icmp_code)
    if ports != (None, None) and request.protocol not in ("tcp", "udp"):
        lines.append("port_min: ports are of protocol tcp or udp")
    if icmp != (None, None) and request.protocol != "icmp":
        lines.append("icmp_type: types and codes are of protocol icmp")
    if request.port_min is None and request.port_max is not None:
        lines.append("port_max: needs the first port, too")
    if None not in ports and ports[0] > ports[1]:  # type: ignore[operator]
        lines.append(f"port_min: {ports[0]} is after {ports[1]}")
    if request.icmp_type is None and request.icmp_code is not None:
        lines.append("icmp_code: needs the type, too")
    if request.remote_cidr is not None and request.remote_group is not None:
        lines.append("remote_group: the other end is a network or a group, not both")
    return lines


def find_group(store: StateStore, caller: Caller, name: str) -> SecurityGroup:
    """The caller's group of that name or id; for an admin any tenant's by its id.

    Raises:
        NotFound: There is none that the caller may see.
    """
    try:
        return store.groups.find(caller.tenant_id, name)
    except NotFound as error:
        if allows(caller, "any:foreign"):
            for group in store.groups.list():
                if group.id == name:
                    return group
        raise NotFound(
            error.message, hint="`fifty security-group list` shows those there are"
        ) from error


def planned_rule(
    store: StateStore, group: SecurityGroup, request: SecurityGroupRequest
) -> SecurityGroupRule:
    """The rule that a request asks for.

    Raises:
        NotFound: The remote group is not there, or another tenant's.
    """
    remote = (
        store.groups.find(group.tenant_id, request.remote_group).id
        if request.remote_group
        else None
    )
    of_icmp = request.protocol == "icmp"
    last = request.port_max if request.port_max is not None else request.port_min
    return SecurityGroupRule(
        id=str(request.rule or uuid.uuid4()),
        direction=request.direction,
        protocol=request.protocol,
        port_min=request.icmp_type if of_icmp else request.port_min,
        port_max=request.icmp_code if of_icmp else last,
        remote_cidr=request.remote_cidr,
        remote_group_id=remote,
    )


def _create(world: World, caller: Caller, request: SecurityGroupRequest) -> str:
    identifier = str(uuid.uuid4())
    world.store.groups.create(identifier, caller.tenant_id, request.name)
    record(f"Recorded the group {request.name}", f"openstack security group create {request.name}")
    return f"created the security group {request.name}"


def _add_rule(world: World, caller: Caller, request: SecurityGroupRequest) -> str:
    store = world.store
    group = find_group(store, caller, request.name)
    rule = planned_rule(store, group, request)

    def add() -> None:
        if store.groups.add_rule(group.id, rule):
            record(
                f"Added the rule {rule.id} to {group.name}",
                f"openstack security group rule create {group.id}",
            )

    _apply(world, group, add)
    return f"{group.name} has the rule {rule.id}"


def _remove_rule(world: World, caller: Caller, request: SecurityGroupRequest) -> str:
    store = world.store
    group = find_group(store, caller, request.name)
    rule_id = str(request.rule)
    _refuse_foreign_rule(store, group, rule_id)
    had_it = any(rule.id == rule_id for rule in group.rules)

    def remove() -> None:
        if store.groups.remove_rule(group.id, rule_id):
            record(
                f"Removed the rule {rule_id} of {group.name}",
                f"openstack security group rule delete {rule_id}",
            )

    _apply(world, group, remove)
    return f"{group.name} has no rule {rule_id}" + ("" if had_it else ", and had none")


def _refuse_foreign_rule(store: StateStore, group: SecurityGroup, rule_id: str) -> None:
    """One of another group of the same tenant is a mistake; one that is gone is fine."""
    for other in store.groups.list(group.tenant_id):
        if other.id != group.id and rule_id in {rule.id for rule in other.rules}:
            raise InvalidRequest(f"the rule {rule_id} is one of the group {other.name!r}")


def _apply(world: World, group: SecurityGroup, change: Callable[[], None]) -> None:
    """Record a change, and give the members on this host their rules, a port a transaction.

    Both while nobody else looks at the rules (`tasks.drift`): to him it is one change. What
    no rule lets pass any more ends with it, connections that are open too.
    """
    store = world.store

    def read() -> list[PortBinding]:
        change()
        return protected(store, store.groups.members(group.id, store.host))

    world.fabric.protect_each(read)


def _delete(world: World, caller: Caller, request: SecurityGroupRequest) -> str:
    group = find_group(world.store, caller, request.name)
    if world.store.groups.delete(group.id):
        record(f"Forgot the group {group.name}", f"openstack security group delete {group.id}")
    return f"{group.name} is deleted"


ACTIONS: Mapping[str, Callable[[World, Caller, SecurityGroupRequest], str]] = {
    "create": _create,
    "add-rule": _add_rule,
    "remove-rule": _remove_rule,
    "delete": _delete,
}

"""The changes to the ports of a VM that is there: hot-plug, its groups, its port security."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence

from blocks.changes import record
from blocks.errors import Conflict, InvalidRequest, NotFound
from blocks.resources import Port, PortKind, PortRequest
from blocks.state import Build, Caller, StateStore
from blocks.world import World
from tasks.at_work import at_work, flow_run_id
from tasks.complete_vm import find_complete
from tasks.floating_ip_routers import let_go
from tasks.interface_change import attach_interface, detach_interface
from tasks.policy import check_policy
from tasks.port_bindings import protected
from tasks.vm_session import VM_KIND

_NEEDED = {"attach": ("network",), "detach": ("port",), "set": ("port",)}
_TAKEN = {
    "attach": ("network", "fixed_ip", "security_groups", "id"),
    "detach": ("port",),
    "set": ("port", "security_groups", "port_security"),
}
_FIELDS = ("network", "port", "fixed_ip", "security_groups", "port_security", "id")


def wrong(request: PortRequest) -> Sequence[str]:
    """What of a port request does not go together, a line each."""
    action = request.action
    given = [field for field in _FIELDS if getattr(request, field) is not None]
    lines = [f"{field}: {action} needs it" for field in _NEEDED[action] if field not in given]
    lines += [f"{field}: {action} takes none" for field in given if field not in _TAKEN[action]]
    if action == "set" and (request.security_groups, request.port_security) == (None, None):
        lines.append("security_groups: set needs them, or port_security")
    return lines


def find_port(store: StateStore, build: Build, name: str) -> Port:
    """A VM's port by its id, its address or its MAC address.

    Raises:
        NotFound: The VM has none such.
    """
    ports = [port for port in store.ports.of_device(build.id) if port.kind is PortKind.COMPUTE]
    for port in ports:
        if name in (port.id, port.mac, *(str(held.address) for held in port.addresses)):
            return port
    raise NotFound(
        f"{build.name} has no port {name!r}", hint=f"`fifty vm show {build.name}` tells its ports"
    )


def _groups(store: StateStore, tenant_id: str, names: Sequence[str]) -> list[str]:
    return [store.groups.find(tenant_id, name).id for name in dict.fromkeys(names)]


def _attach(world: World, caller: Caller, request: PortRequest) -> str:
    store = world.store
    build = find_complete(world.store, caller, request.name, request.credentials)
    tenant = store.instances.get(build.id).tenant_id
    network = store.networks.find(tenant, request.network or "")
    names = ("default",) if request.security_groups is None else request.security_groups
    groups = _groups(store, tenant, names)
    # The same run again, and the same id again, is the same port.
    run = uuid.UUID(flow_run_id() or str(uuid.uuid4()))
    port_id = str(request.id or uuid.uuid5(run, "port"))
    _refuse_foreign(store, build, port_id)
    with at_work(VM_KIND, world, build, "attach"):
        port = attach_interface(world, build, network, port_id, groups, request.fixed_ip)
    address = ", ".join(str(held.address) for held in port.addresses)
    return f"{build.name} is in {network.name} at {address}"


def _refuse_foreign(store: StateStore, build: Build, port_id: str) -> None:
    try:
        port = store.ports.get(port_id)
    except NotFound:
        return
    if port.device_id != build.id:
        raise Conflict("the id is that of another port", hint="leave it out, or choose another")


def _detach(world: World, caller: Caller, request: PortRequest) -> str:
    store = world.store
    build = find_complete(world.store, caller, request.name, request.credentials)
    port = find_port(store, build, request.port or "")
    with at_work(VM_KIND, world, build, "detach"):
        let_go({port.id}, store, world.fabric)
        detach_interface(world, build, port.id)
    return f"{build.name} has no port {request.port} any more"


def _set(world: World, caller: Caller, request: PortRequest) -> str:
    store = world.store
    build = find_complete(world.store, caller, request.name, request.credentials)
    port = find_port(store, build, request.port or "")
    on = request.port_security
    if on is not None:
        check_policy(caller, "port:change:port_security")
    secured = port.port_security if on is None else on
    if request.security_groups and not secured:
        raise InvalidRequest(
            "security_groups: a port without port security has none",
            hint="turn port security on with it",
        )
    groups = list(port.security_groups)
    if request.security_groups is not None:
        groups = _groups(store, port.tenant_id, request.security_groups)
    with at_work(VM_KIND, world, build, "set"):
        before = set(port.security_groups)
        if store.ports.bind(port.id, port.host, groups):
            record(
                f"Put the port {port.id} into {len(groups)} group(s)",
                f"openstack port set --security-group ... {port.id}",
            )
        if on is not None and store.ports.set_security(port.id, on=on):
            option = "--enable-port-security" if on else "--disable-port-security"
            record(f"Set the port's security {on}", f"openstack port set {option} {port.id}")
        concerned = {*before, *groups}

        def ports() -> list[Port]:
            # Rules of others that name its groups learn of the member, or forget it.
            others = store.groups.ports_that_name(concerned, store.host)
            changed = store.ports.get(port.id)
            return [changed, *(other for other in others if other.id != changed.id)]

        world.fabric.protect_each(lambda: protected(store, ports()))
    return f"the port {port.id} of {build.name} is as asked for"


ACTIONS: Mapping[str, Callable[[World, Caller, PortRequest], str]] = {
    "attach": _attach,
    "detach": _detach,
    "set": _set,
}

"""The changes to a floating IP: recorded first, then its routers are made to be as recorded."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from ipaddress import AddressValueError, IPv4Address

from blocks.changes import record
from blocks.errors import Conflict, InvalidRequest, NotFound
from blocks.resources import FloatingIp, FloatingIpRequest, Port, PortKind
from blocks.resources.address_forms import NO_IPV6
from blocks.state import Caller, StateStore
from blocks.world import World
from tasks.floating_ip_routers import follow
from tasks.policy import allows


def wrong(request: FloatingIpRequest) -> Sequence[str]:
    """What of a floating IP request does not go together, a line each."""
    lines = []
    action = request.action
    if action == "create":
        if request.network is None:
            lines.append("network: create needs the external network")
        if request.name is not None:
            lines += _wrong_address(request.name)
    else:
        if request.name is None:
            lines.append(f"name: {action} needs the floating IP's address, or its id")
        if request.network is not None:
            lines.append(f"network: {action} takes none")
        if request.id is not None:
            lines.append(f"id: {action} makes no new one")
    if action == "attach":
        if (request.vm is None) == (request.port is None):
            lines.append("vm: attach needs the VM, or the port; one of them")
    else:
        lines += [
            f"{field}: {action} takes none"
            for field in ("vm", "port", "fixed_ip")
            if getattr(request, field) is not None
        ]
    return lines


def _wrong_address(text: str) -> list[str]:
    try:
        IPv4Address(text)
    except AddressValueError:
        if ":" in text:
            return [f"name: {NO_IPV6}; give an IPv4 address (given: {text!r})"]
        return [f"name: {text!r} is not an IPv4 address, which is what create wants or nothing"]
    return []


def find_floating_ip(store: StateStore, caller: Caller, name: str) -> FloatingIp:
    """The caller's floating IP of that address or id; for an admin any tenant's by its id.

    Raises:
        NotFound: There is none that the caller may see.
    """
    try:
        return store.floating_ips.find(caller.tenant_id, name)
    except NotFound:
        if allows(caller, "any:foreign"):
            for floating in store.floating_ips.list():
                if floating.id == name:
                    return floating
        raise


def _create(world: World, caller: Caller, request: FloatingIpRequest) -> str:
    store = world.store
    network = store.networks.find(caller.tenant_id, request.network or "")
    wanted = IPv4Address(request.name) if request.name else None
    identifier = str(request.id or uuid.uuid4())
    floating = store.floating_ips.create(identifier, caller.tenant_id, network.id, wanted)
    if (floating.tenant_id, floating.network_id) != (caller.tenant_id, network.id):
        raise Conflict("the id is that of another floating IP", hint="leave it out, or choose one")
    record(
        f"Took the address {floating.address} of {network.name}",
        f"openstack floating ip create {network.name}",
    )
    return f"{floating.address} of {network.name}"


def _attach(world: World, caller: Caller, request: FloatingIpRequest) -> str:
    store = world.store
    floating = find_floating_ip(store, caller, request.name or "")
    port = _port(store, floating, request)
    if floating.former_router_id:
        follow(floating.id, store, world.fabric)
    changed = store.floating_ips.attach(floating.id, port.id, request.fixed_ip)
    now = store.floating_ips.get(floating.id)
    if changed:
        record(
            f"Floating IP {now.address} leads to {now.fixed_address}",
            f"openstack floating ip set --port {port.id} {now.address}",
        )
    follow(floating.id, store, world.fabric)
    return f"{now.address} leads to {now.fixed_address}"


def _port(store: StateStore, floating: FloatingIp, request: FloatingIpRequest) -> Port:
    """The guest's port that is meant: the one named, or the VM's one that fits."""
    if request.port is not None:
        port = store.ports.get(str(request.port))
        if port.tenant_id != floating.tenant_id:
            raise NotFound(f"there is no port with id {request.port}")
        return port
    instance = store.instances.find(request.vm or "", floating.tenant_id)
    ports = [port for port in store.ports.of_device(instance.id) if port.kind is PortKind.COMPUTE]
    if request.fixed_ip is not None:
        ports = [
            port for port in ports if request.fixed_ip in {each.address for each in port.addresses}
        ]
        if not ports:
            raise InvalidRequest(f"{instance.name} has no address {request.fixed_ip}")
    if not ports:
        raise Conflict(f"{instance.name} has no port", hint="attach an interface to it first")
    if len(ports) == 1:
        return ports[0]
    reached = [port for port in ports if _is_reached(store, floating, port)]
    if len(reached) != 1:
        raise InvalidRequest(
            f"{instance.name} has {len(ports)} ports, and {len(reached)} that it can lead to",
            hint="say which: `--port ID`, or `--fixed-ip ADDRESS` (`fifty vm show` tells them)",
        )
    return reached[0]


def _is_reached(store: StateStore, floating: FloatingIp, port: Port) -> bool:
    router = store.routers.of_network(port.network_id)
    gateway = router.gateway if router else None
    return gateway is not None and gateway.network.id == floating.network_id


def _detach(world: World, caller: Caller, request: FloatingIpRequest) -> str:
    store = world.store
    floating = find_floating_ip(store, caller, request.name or "")
    if floating.former_router_id:
        follow(floating.id, store, world.fabric)
    changed = store.floating_ips.detach(floating.id)
    if changed:
        record(
            f"Floating IP {floating.address} leads nowhere",
            f"openstack floating ip unset --port {floating.address}",
        )
    follow(floating.id, store, world.fabric)
    return f"{floating.address} is {'detached' if changed else 'not attached'}"


def _delete(world: World, caller: Caller, request: FloatingIpRequest) -> str:
    store = world.store
    floating = find_floating_ip(store, caller, request.name or "")
    _detach(world, caller, request)
    if store.floating_ips.delete(floating.id):
        record(
            f"Gave the address {floating.address} back",
            f"openstack floating ip delete {floating.address}",
        )
    return f"{floating.address} is deleted"


ACTIONS: Mapping[str, Callable[[World, Caller, FloatingIpRequest], str]] = {
    "create": _create,
    "attach": _attach,
    "detach": _detach,
    "delete": _delete,
}

"""Interfaces plugged into, and unplugged from, a VM that is complete: hot-plug.

As Nova's `attach_interface` and `detach_interface` (`nova.compute.manager`). The port is
recorded before anything is made and forgotten after all is gone, so that whoever is stopped in
between can do the same again, or the VM's deletion, which undoes all of its ports.

Both are called under the VM's lease.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import PurePosixPath

from blocks.changes import record
from blocks.errors import Conflict, FiftyError, HostFault, InvalidRequest, NotFound
from blocks.hypervisor import interface_spec
from blocks.resources import Network, Port, PortBinding, PortKind
from blocks.state import Build
from blocks.world import World
from tasks.device_notes import note_devices
from tasks.port_bindings import binding_of
from tasks.segments import serve_here
from tasks.steps_31_38_network import remove_unused_segments
from tasks.vm_build import VmBuild

#: As many as a VM may be created with.
MOST_INTERFACES = 8


def attach_interface(
    world: World,
    build: Build,
    network: Network,
    port_id: str,
    groups: Sequence[str],
    wanted: IPv4Address | None = None,
) -> Port:
    """Plug a VM into a network more; there already under this port's id is fine.

    Args:
        world: The connections of the VM's host.
        build: The VM's build, complete.
        network: The network.
        port_id: The new port's id, the same for the same request.
        groups: The ids of the port's security groups.
        wanted: Its address; None is the next free one.

    Returns:
        The port.

    Raises:
        FiftyError: What kept it; all that was made is removed again.
    """
    if network.external:
        raise InvalidRequest(f"{network.name!r} is an external network: guests are not put there")
    ports = world.store.ports.of_device(build.id)
    known = any(port.id == port_id for port in ports)
    if not known and len(ports) >= MOST_INTERFACES:
        raise Conflict(f"{build.name} has {len(ports)} interfaces; more are not possible")
    try:
        port = _record(world, build, network, port_id, groups, wanted)
        binding = binding_of(world.store, port, build.name)
        _realize(world, build, binding)
        world.hypervisor.attach_interface(
            build.id, interface_spec(binding, VmBuild(world, build).image)
        )
    except FiftyError:
        if not known:
            detach_interface(world, build, port_id)
        raise
    note_devices(world, build)
    return port


def detach_interface(world: World, build: Build, port_id: str) -> None:
    """Unplug a VM from a network; already gone is fine.

    Raises:
        Conflict: A floating IP leads to the port, or it is no port of this VM.
        Transient: The guest does not let go of the interface; the port stays until it does.
    """
    store, fabric = world.store, world.fabric
    try:
        port = store.ports.get(port_id)
    except NotFound:
        note_devices(world, build)
        return
    if port.device_id != build.id or port.kind is not PortKind.COMPUTE:
        raise Conflict(f"the port {port_id} is not one of {build.name}")
    for floating in store.floating_ips.list():
        if floating.port_id == port.id:
            raise Conflict(
                f"the floating IP {floating.address} leads to it",
                hint=f"`fifty floating-ip detach {floating.address}` first",
            )
    if port.mac is not None:
        image = VmBuild(world, build).image
        interface = interface_spec(binding_of(store, port, build.name), image)
        world.hypervisor.detach_interface(build.id, interface)
    fabric.unprotect(port)
    fabric.unplug(port)
    fabric.drop_metadata(port)
    fabric.release(port)
    subject = VmBuild(world, build)
    own = [binding for binding in subject.bindings if binding.port.mac and binding.port.addresses]
    others = [*own, *subject.peers]
    remove_unused_segments([port], fabric, store)
    if store.ports.delete(port.id):
        record(f"Forgot the port {port.id}", f"openstack port delete {port.id}")
    # Rules that name its groups forget its address.
    fabric.protect_each(lambda: _as_recorded(others, world))
    note_devices(world, build)


def _record(
    world: World,
    build: Build,
    network: Network,
    port_id: str,
    groups: Sequence[str],
    wanted: IPv4Address | None,
) -> Port:
    """Record the port whole: quota, MAC address, address, host, groups."""
    store = world.store
    instance = store.instances.get(build.id)
    ports = store.ports.of_device(build.id)
    count = len({*(port.id for port in ports), port_id})
    store.quota.resize(instance.tenant_id, build.id, "ports", count)
    store.ports.plan(
        port_id=port_id,
        tenant_id=instance.tenant_id,
        network_id=network.id,
        kind=PortKind.COMPUTE,
        device_id=build.id,
        index=1 + max((port.index for port in ports), default=-1),
    )
    store.ports.give_mac(port_id)
    subnets = store.networks.subnets(network.id)
    if not subnets:
        raise Conflict(f"{network.name!r} has no subnet")
    address, new = store.ports.give_address(port_id, subnets[0].id, wanted)
    if not new and wanted is not None and address != wanted:
        raise Conflict(f"the port {port_id} has the address {address} already")
    store.ports.bind(port_id, instance.host, groups)
    if new:
        record(
            f"Recorded the port {port_id} at {address} of {network.name}",
            f"openstack port create --network {network.name} {port_id}",
        )
    return store.ports.get(port_id)


def _realize(world: World, build: Build, binding: PortBinding) -> None:
    """What the steps 31 to 38 do, for one port."""
    fabric = world.fabric
    # This host may have nothing of the network yet.
    serve_here(binding.network, world)
    fabric.reserve(binding)
    subject = VmBuild(world, build)
    documents = {PurePosixPath(path).name: text for path, text in subject.metadata.items()}
    for one in subject.bindings:
        fabric.put_metadata(one, documents)
    fabric.plug(binding, world.hypervisor.qemu_identity()[0])
    # The VM's other ports, too: their rules may name a group that the new one is in.
    fabric.protect_each(lambda: [*subject.bindings, *subject.peers])
    wrong = fabric.prove_each(lambda: [(binding, None)])
    if wrong:
        raise HostFault("the port is not what it should be", details=wrong)


def _as_recorded(bindings: Sequence[PortBinding], world: World) -> list[PortBinding]:
    """Ports as they are recorded now; those that were deleted meanwhile are left out."""
    known = {port.id: port for port in world.store.ports.list(kind=PortKind.COMPUTE)}
    return [
        binding_of(world.store, known[binding.port.id], binding.host_name)
        for binding in bindings
        if binding.port.id in known
    ]

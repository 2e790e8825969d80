"""A network on its host: what is missing of it there, its routers and its guests' ports again.

What is as recorded is left alone: a repair cuts nothing that works.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath

from prefect import get_run_logger, task

from blocks.changes import collecting
from blocks.errors import Conflict, FiftyError, HostFault, NotFound, Transient
from blocks.hypervisor import interface_spec
from blocks.resources import Network, PortBinding, Router
from blocks.state import Build
from blocks.world import World
from tasks.drift import GuestPort, guest_ports, network_drift, port_differences, routers_of
from tasks.network_build import NetworkBuild
from tasks.port_bindings import binding_of
from tasks.router_legs import refresh_router
from tasks.segments import differences_here, realize_here, serve_here
from tasks.vm_build import VmBuild

#: Its journal row tells on which boot of the host the bridge was made last.
SEGMENT_STEP = 4
#: What a domain does whose QEMU is there, and holds its taps.
_WITH_QEMU = ("running", "paused", "suspended", "stalled")


def lost_network(subject: NetworkBuild) -> list[str]:
    """What of a network, and of its running guests' ports, is not on its host as recorded."""
    network, world = subject.network, subject.world
    if network.anchor_host != subject.store.host:
        return []
    if subject.store.journal.rebooted(subject.build_id, subject.generation, SEGMENT_STEP):
        return ["the host was rebooted"]
    drift = network_drift(network, world.store, world.fabric, world.settings, _runs(world))
    return drift.lines


def lost_here(world: World) -> list[tuple[Network, Build, list[str]]]:
    """What is not as recorded of networks that other hosts anchor, where guests here need it.

    A network that this host anchors is `lost_network`'s matter, with its guests' ports.

    Returns:
        Each such network with its build, and the differences in words.
    """
    store, found = world.store, []
    for network in store.networks.list():
        if network.anchor_host == store.host or not any(guest_ports(network, store)):
            continue
        drift = network_drift(network, store, world.fabric, world.settings, _runs(world))
        try:
            if why := [*differences_here(network, world), *drift.lines]:
                found.append((network, store.builds.get(network.id), why))
        except NotFound:
            continue  # deleted since it was listed
    return found


def _runs(world: World) -> Callable[[str], bool]:
    """Whether an instance's guest runs; no where libvirt does not answer.

    Its ports are not looked at then, as without libvirt they could not be repaired. Whoever
    asks which guests are off tells that libvirt is silent (`tasks.vm_restore.powered_off`).
    """

    def runs(instance_id: str) -> bool:
        try:
            return world.hypervisor.state(instance_id) in _WITH_QEMU
        except (HostFault, Transient):
            return False

    return runs


def restore_attached(subject: NetworkBuild) -> None:
    """Make the routers and the guests' ports of a network what is recorded, a task each.

    By the records, not by the network's request: legs, gateways and ports may have been
    changed since.

    Raises:
        HostFault: Some ports could not be repaired; the details tell.
    """
    for router in routers_of(subject.network, subject.store):
        _restore_router(router, subject.world)
    restore_ports(subject.network, subject.world)


def restore_ports(network: Network, world: World) -> None:
    """Make the ports of a network's running guests here what is recorded, a task each.

    Raises:
        HostFault: Some could not be repaired; the details tell.
    """
    repair_each(network, world, _restore_port)


def repair_each(
    network: Network, world: World, repair: Callable[[GuestPort, World], object]
) -> None:
    """Repair the ports of a network's running guests here that are not as recorded.

    Raises:
        HostFault: Some could not be repaired; the details tell.
    """
    runs, failures = _runs(world), []
    for guest in guest_ports(network, world.store):
        if runs(guest.build.id) and port_differences(guest.binding, world.fabric):
            try:
                repair(guest, world)
            except FiftyError as error:
                # One port that cannot be repaired does not keep the others from it.
                failures.append(f"{guest.label}: {error}")
    if failures:
        raise HostFault(f"{len(failures)} port(s) could not be repaired", details=failures)


def _restore_router(router: Router, world: World) -> None:
    def restore() -> None:
        legs = (*router.legs, *((router.gateway,) if router.gateway else ()))
        for leg in legs:
            # Its other networks' bridges: their own turn may come later.
            realize_here(leg.network, world)
        refresh_router(router.id, world.store, world.fabric)

    _as_task("router", router.name, restore)


def _restore_port(guest: GuestPort, world: World) -> None:
    def restore() -> None:
        if passed_over := repair(guest, world):
            get_run_logger().info("%s is passed over: %s", guest.label, passed_over)

    _as_task("port", guest.label, restore)


def repair(guest: GuestPort, world: World) -> str | None:
    """Repair a port under the VM's lease, by what is recorded then: it may have been changed.

    On a host that does not anchor its network, with what the network has there for its guests.

    Returns:
        Why it was passed over; None where it was repaired.
    """
    store = world.store
    try:
        token = store.leases.acquire(guest.build.id, "repair")
    except Conflict as error:
        return str(error)
    try:
        port = store.ports.get(guest.binding.port.id)
        binding = binding_of(store, port, guest.build.name)
        if binding.network.anchor_host != store.host:
            serve_here(binding.network, world)
        repair_port(binding, world)
    except NotFound:
        return "it was deleted meanwhile"
    finally:
        store.leases.release(guest.build.id, token)
    return None


def repair_port(binding: PortBinding, world: World) -> None:
    """Make a running guest's port what is recorded; what is so already stays.

    A tap that was deleted under QEMU is lost to it: the interface is unplugged, and plugged
    into the new tap.

    Raises:
        HostFault: It is not what it should be even so; the details tell.
        Transient: The guest does not let go of the interface whose tap is lost.
    """
    port, fabric = binding.port, world.fabric
    instance_id = port.device_id or ""
    subject = VmBuild(world, world.store.builds.get(instance_id))
    documents = {PurePosixPath(path).name: text for path, text in subject.metadata.items()}
    fabric.reserve(binding)
    fabric.put_metadata(binding, documents)
    fabric.plug(binding, world.hypervisor.qemu_identity()[0])
    fabric.protect(binding)
    if not fabric.carrier(port):
        interface = interface_spec(binding, subject.image)
        world.hypervisor.detach_interface(instance_id, interface)
        world.hypervisor.attach_interface(instance_id, interface)
    wrong = port_differences(binding, fabric)
    if wrong:
        raise HostFault(f"the port {port.tap} is not what it should be", details=wrong)


def _as_task(what: str, name: str, restore: Callable[[], None]) -> None:
    """Run a restoration as a Prefect task that logs what it changed."""

    def body(name: str) -> None:
        del name
        with collecting() as changes:
            restore()
        for made in changes:
            get_run_logger().info("%s\n  # %s", made.what, made.command)

    body.__name__ = f"restore_{what}"
    task(name=f"restore {what}", task_run_name=f"restore {what} {name}")(body)(name)

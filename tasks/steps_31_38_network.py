"""Steps 31 to 38, the network: what the port was only described as becomes real."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from blocks.errors import HostFault, NotFound
from blocks.fabric import NetworkFabric
from blocks.hypervisor import LibvirtHost
from blocks.resources import Network, Port, PortBinding, Router, VmRequest
from blocks.state import Build, StateStore
from blocks.world import World
from tasks.segments import realize_here
from tasks.vm_build import VM, VmBuild
from tasks.vm_floating_ip import give_floating_ip, take_floating_ips

step = VM.stage("N")


def remove_unused_segments(ports: list[Port], fabric: NetworkFabric, store: StateStore) -> None:
    """Remove what this host has of a network that nothing here uses any more.

    Where the network's DHCP and router are (its anchor), all of it stays: it is the
    network's, not this VM's. The other hosts take their tunnels to this one away when they
    look next (`tasks.segments.follow_hosts`).
    """
    left = {port.network_id for port in ports}
    for network in store.networks.list():
        if network.id in left and network.anchor_host != store.host:
            fabric.leave_network(network, partial(_unused, network, ports, store))


def _unused(network: Network, leaving: list[Port], store: StateStore) -> bool:
    """Whether no port but those that leave is bound to a network on this host."""
    gone = {port.id for port in leaving}
    return not any(
        port.host == store.host and port.id not in gone
        for port in store.ports.list(network_id=network.id)
    )


@step(31, "Realize the segment", undo=remove_unused_segments)
def realize_segments(networks: list[Network], world: World, fabric: NetworkFabric) -> list[str]:
    """Make each network's bridge and tunnel on this host, where they are not there yet.

    Here Neutron's Linux bridge agent does so when it sees the port's tap
    (`neutron.plugins.ml2.drivers.linuxbridge`, `ensure_bridge`).
    """
    for network in networks:
        realize_here(network, world)
    return [fabric.segment_bridge(network) for network in networks]


def release_reservations(ports: list[Port], fabric: NetworkFabric) -> None:
    """Take the ports' DHCP reservations back; the servers stay, they are the networks'."""
    for port in ports:
        fabric.release(port)


@step(32, "Serve DHCP", undo=release_reservations)
def serve_dhcp(
    bindings: list[PortBinding],
    dhcp_ports: list[Port],
    fabric: NetworkFabric,
) -> list[str]:
    """Run each network's dnsmasq in its namespace, and reserve the port's address there.

    Here Neutron's DHCP agent does (`neutron.agent.dhcp.agent`, one `qdhcp-` namespace a
    network).
    """
    for binding, dhcp_port in zip(bindings, dhcp_ports, strict=True):
        fabric.serve_dhcp(binding.network, binding.subnets[0], dhcp_port)
        fabric.reserve(binding)
    return [str(binding.port.addresses[0].address) for binding in bindings]


def remove_forgotten_routers(
    plan: dict[str, Any], fabric: NetworkFabric, store: StateStore
) -> None:
    """Remove the routers that were deleted while this build was under way.

    The others stay: a router is its tenant's, not this VM's.
    """
    recorded = {router.id for router in store.routers.list()}
    for router_id in plan.get("routers", []):
        if router_id not in recorded:
            fabric.remove_router(router_id)


@step(33, "Realize the router", undo=remove_forgotten_routers)
def realize_routers(
    build: Build, routers: list[Router], fabric: NetworkFabric, store: StateStore
) -> list[str]:
    """Make each router's namespace and its legs in the networks, where there is one.

    Here Neutron's L3 agent does (`neutron.agent.l3.agent`, one `qrouter-` namespace each).
    """
    here = [router for router in routers if router.host == store.host]
    store.builds.note(build.id, routers=[router.id for router in here])
    for router in here:
        with suppress(NotFound):  # it was deleted meanwhile
            fabric.realize_router(router, partial(store.routers.get, router.id))
    return [router.name for router in here]


def disconnect_cleared_gateways(
    build: Build,
    ports: list[Port],
    routers: list[Router],
    fabric: NetworkFabric,
    store: StateStore,
) -> None:
    """Detach the floating IPs, and leave gateways that were cleared while this was under way."""
    take_floating_ips(build, ports, store, fabric)
    for router in routers:
        if router.host == store.host and router.gateway is None:
            fabric.disconnect_outside(router)


@step(34, "Connect the outside", undo=disconnect_cleared_gateways)
def connect_outside(
    build: Build,
    request: VmRequest,
    ports: list[Port],
    routers: list[Router],
    fabric: NetworkFabric,
    store: StateStore,
) -> list[str]:
    """Connect each router's gateway leg, with source NAT; and the floating IP asked for.

    Here Neutron's L3 agent does (`neutron.agent.l3.router_info.external_gateway_added`,
    `process_floating_ip_addresses`).
    """
    connected = [router for router in routers if router.gateway and router.host == store.host]
    for router in connected:
        with suppress(NotFound):  # it was deleted meanwhile
            fabric.connect_outside(router, partial(store.routers.get, router.id))
    # When a VM is brought back after a reboot, its floating IP is where its tenant has it now.
    if request.floating and build.state == "building":
        give_floating_ip(build, ports[0], store, fabric)
    return [router.name for router in connected]


def drop_metadata(ports: list[Port], fabric: NetworkFabric) -> None:
    """Stop answering the ports' guest; its documents are removed."""
    for port in ports:
        fabric.drop_metadata(port)


@step(35, "Serve metadata", undo=drop_metadata)
def serve_metadata(
    bindings: list[PortBinding], metadata: Mapping[str, bytes], fabric: NetworkFabric
) -> list[str]:
    """Answer the guest at 169.254.169.254 with its own documents, and only with those.

    Here Neutron's metadata agent proxies to Nova (`neutron.agent.metadata.agent`).
    """
    served = {PurePosixPath(path).name: content for path, content in metadata.items()}
    for binding in bindings:
        fabric.put_metadata(binding, served)
        fabric.serve_metadata(binding.network)
    return sorted(served)


def unplug_taps(ports: list[Port], fabric: NetworkFabric) -> None:
    """Remove the tap devices."""
    for port in ports:
        fabric.unplug(port)


@step(36, "Plug the tap device", undo=unplug_taps)
def plug_taps(
    bindings: list[PortBinding], fabric: NetworkFabric, hypervisor: LibvirtHost
) -> list[str]:
    """Create each port's tap device and enslave it to its network's bridge.

    Here os-vif plugs it (`vif_plug_linux_bridge.linux_net`, called by Nova's
    `LibvirtDriver.plug_vifs`). The device belongs to the user that QEMU runs as.
    """
    uid, _gid = hypervisor.qemu_identity()
    for binding in bindings:
        fabric.plug(binding, uid)
    return [binding.port.tap or "" for binding in bindings]


def lift_rules(ports: list[Port], fabric: NetworkFabric) -> None:
    """Remove the ports' rules from the firewall."""
    for port in ports:
        fabric.unprotect(port)


@step(37, "Apply the security groups", undo=lift_rules)
def apply_security_groups(
    bindings: list[PortBinding], subject: VmBuild, fabric: NetworkFabric
) -> int:
    """Load anti-spoofing and stateful rules for each port, in one nft transaction each.

    Ports of other VMs whose rules name this one's groups learn of the new member. Here
    Neutron's agent does so (`neutron.agent.linux.iptables_firewall`, and the server's
    `security_groups_member_updated`).
    """
    fabric.protect_each(lambda: [*subject.bindings, *subject.peers])
    return sum(len(binding.rules) for binding in bindings)


@step(38, "Prove the port")
def prove_ports(subject: VmBuild, fabric: NetworkFabric, store: StateStore) -> str:
    """Read back from the kernel what steps 31 to 37 made, and compare.

    OpenStack has no such step: there, a port that is not wired is found by the guest.
    """

    def read() -> list[tuple[PortBinding, Router | None]]:
        routers = [store.routers.of_network(each.network.id) for each in subject.bindings]
        here = [router if router and router.host == store.host else None for router in routers]
        return list(zip(subject.bindings, here, strict=True))

    wrong = fabric.prove_each(read)
    if wrong:
        raise HostFault("the network is not what it should be", details=wrong)
    return "as recorded"

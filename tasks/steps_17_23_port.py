"""Steps 17 to 23, the compute manager: claim the host, and describe every port."""

from __future__ import annotations

from typing import Any

from blocks.changes import record
from blocks.errors import Conflict
from blocks.fabric import NetworkFabric
from blocks.resources import (
    Instance,
    Network,
    Port,
    PortBinding,
    Subnet,
    TaskState,
    VmRequest,
)
from blocks.state import Build, StateStore
from tasks.vm_build import VM, VmBuild

step = VM.stage("C")


def release_claim(build: Build, instance: Instance, store: StateStore) -> None:
    """Give the host back what step 17 claimed."""
    if store.hosts.release(build.id):
        record(f"Released the claim on {instance.host}", f"fifty: release claim {build.id}")
    store.instances.update(build.id, host=None)


@step(17, "Claim the resources", undo=release_claim)
def claim_resources(
    build: Build, plan: dict[str, Any], instance: Instance, request: VmRequest, store: StateStore
) -> dict[str, int]:
    """Claim processors, memory and disk of the host, atomically, against its totals.

    Here Nova's resource tracker claims (`nova.compute.resource_tracker.instance_claim`),
    after Placement has recorded the allocation.
    """
    flavor = instance.flavor
    wanted = {
        "vcpus": flavor.vcpus,
        "ram_mib": flavor.ram_mib,
        "disk_gib": flavor.disk_gib + sum(request.volumes),
    }
    host = plan["host"]
    # The instance names its host before the claim exists: the undo must find it.
    store.instances.update(build.id, host=host)
    if store.hosts.claim(build.id, host, wanted):
        words = ", ".join(f"{name} {amount}" for name, amount in wanted.items())
        record(
            f"Claimed of {host}: {words}", f"openstack resource provider allocation show {build.id}"
        )
    return wanted


@step(18, "Begin networking")
def begin_networking(
    instance: Instance, networks: list[Network], fabric: NetworkFabric, store: StateStore
) -> list[str]:
    """Say that networking begins, and check that this host can do what the networks need.

    Here Nova's compute manager sets the task state `networking` and starts to allocate in
    the background (`nova.compute.manager.ComputeManager._allocate_network`).
    """
    store.instances.update(instance.id, task_state=TaskState.NETWORKING)
    for network in networks:
        fabric.check(network)
    return [network.name for network in networks]


def take_macs(ports: list[Port], store: StateStore) -> None:
    """Take the MAC addresses back."""
    for port in ports:
        if store.ports.take_mac(port.id):
            record(f"Freed the MAC address {port.mac}", f"openstack port unset {port.id}")


@step(19, "Generate the MAC address", undo=take_macs)
def generate_macs(ports: list[Port], store: StateStore) -> list[str]:
    """Give every port a MAC address that no other port has: `fa:16:3e`, then random.

    Here Neutron generates it (`neutron_lib.utils.net.get_random_mac`, option `base_mac`)
    and tries again when the database says that it is taken.
    """
    macs = []
    for port in ports:
        mac, new = store.ports.give_mac(port.id)
        macs.append(mac)
        if new:
            record(f"Chose the MAC address {mac}", f"openstack port create --mac-address {mac}")
    return macs


@step(20, "Obtain the DHCP configuration")
def obtain_dhcp(
    build: Build, bindings: list[PortBinding], store: StateStore
) -> list[dict[str, Any]]:
    """Look up what DHCP will tell each port: server, lease time, options, MTU.

    Here Neutron's DHCP agent builds the options of the port
    (`neutron.agent.linux.dhcp.Dnsmasq._generate_opts_per_subnet`).
    """
    configurations = [
        _dhcp_configuration(binding.network, subnet)
        for binding in bindings
        for subnet in binding.subnets[:1]
    ]
    store.builds.note(build.id, dhcp=configurations)
    return configurations


def _dhcp_configuration(network: Network, subnet: Subnet) -> dict[str, Any]:
    if subnet.dhcp and subnet.dhcp_address is None:
        raise Conflict(
            f"the network {network.name!r} has DHCP, but its server has no address",
            hint=f"`fifty network delete {network.name}` and create it again",
        )
    return {
        "network": network.name,
        "dhcp": subnet.dhcp,
        "server": str(subnet.dhcp_address) if subnet.dhcp_address else None,
        "lease_s": subnet.lease_s,
        "router": str(subnet.gateway) if subnet.gateway else None,
        "dns": [str(server) for server in subnet.dns],
        "mtu": network.mtu,
    }


def free_addresses(ports: list[Port], store: StateStore) -> None:
    """Free the addresses."""
    for port in ports:
        for address in store.ports.take_addresses(port.id):
            record(f"Freed the address {address}", f"openstack port unset --fixed-ip {port.id}")


@step(21, "Get the network information", undo=free_addresses)
def get_network_info(
    build: Build, bindings: list[PortBinding], request: VmRequest, store: StateStore
) -> list[dict[str, Any]]:
    """Allocate each port's address, and gather gateway, name servers and routes.

    Here Neutron's IPAM allocates (`neutron.ipam.drivers.neutrondb_ipam`), and Nova keeps
    the whole as the instance's network info cache.
    """
    wanted = dict(enumerate(nic.address for nic in request.nics))
    # Those asked for by their address go first: another port's next free one may be one.
    for binding in sorted(bindings, key=lambda binding: not wanted.get(binding.port.index)):
        subnet = binding.subnets[0]
        address, new = store.ports.give_address(
            binding.port.id, subnet.id, wanted.get(binding.port.index)
        )
        if new:
            record(
                f"Allocated {address} of {binding.network.name}",
                f"openstack port set --fixed-ip subnet={subnet.id},ip-address={address}",
            )
    info = []
    for port, binding in zip(store.ports.of_device(build.id), bindings, strict=True):
        subnet = binding.subnets[0]
        info.append(
            {
                "network": binding.network.name,
                "address": str(port.addresses[0].address),
                "prefix": subnet.cidr.prefixlen,
                "gateway": str(subnet.gateway) if subnet.gateway else None,
                "dns": [str(server) for server in subnet.dns],
            }
        )
    store.builds.note(build.id, network_info=info)
    return info


@step(22, "Get the security-group information")
def get_security_groups(
    build: Build, instance: Instance, request: VmRequest, store: StateStore
) -> dict[str, list[dict[str, Any]]]:
    """Resolve the security groups into their rules.

    Here Neutron's server expands the rules for the agent, remote groups into addresses
    (`neutron.db.securitygroups_rpc_base`).
    """
    groups = [store.groups.find(instance.tenant_id, name) for name in request.security_groups]
    store.builds.note(build.id, groups=[group.id for group in groups])
    return {group.name: [rule.model_dump(mode="json") for rule in group.rules] for group in groups}


def unbind_ports(
    build: Build, ports: list[Port], subject: VmBuild, fabric: NetworkFabric, store: StateStore
) -> None:
    """Take the ports off their host and out of their groups; the other members forget them."""
    recorded = {port.id for port in store.ports.of_device(build.id)}
    for port in ports:
        if port.id in recorded and store.ports.bind(port.id, None, ()):
            record(f"Unbound the port {port.id}", f"openstack port unset --host {port.id}")
    fabric.protect_each(lambda: subject.peers)


@step(23, "Create the port object", undo=unbind_ports)
def create_ports(
    build: Build, plan: dict[str, Any], ports: list[Port], store: StateStore
) -> list[dict[str, Any]]:
    """Complete each port's record: host, groups, MAC, address, the tap's name. No tap yet.

    The seed's words: "hold all information, creating a port object is a tap device. Of
    course, the real device has not been created". Here Nova calls Neutron's API
    `POST /v2.0/ports`.
    """
    for port in ports:
        if store.ports.bind(port.id, plan["host"], plan["groups"]):
            record(
                f"Bound the port {port.id} ({port.mac}, tap {port.tap}) to {plan['host']}",
                f"openstack port set --host {plan['host']} {port.id}",
            )
    complete = [port.model_dump(mode="json") for port in store.ports.of_device(build.id)]
    store.builds.note(build.id, ports=complete)
    return complete

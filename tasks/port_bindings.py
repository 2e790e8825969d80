"""Ports as the fabric takes them, read from the records."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network

from blocks.errors import NotFound
from blocks.guest.ssh import PORT as SSH
from blocks.resources import FirewallRule, Port, PortBinding, PortKind
from blocks.state import StateStore, StepState

#: From this step of a VM's build on a port has its rules (`steps_31_38_network`).
RULES_STEP = 37


def binding_of(store: StateStore, port: Port, name: str) -> PortBinding:
    """A port with all that its host must know to realize it.

    Args:
        store: The state store.
        port: The port.
        name: What its VM is called.
    """
    network = store.networks.get(port.network_id)
    return PortBinding(
        port=port,
        network=network,
        subnets=tuple(store.networks.subnets(network.id)),
        rules=(*store.groups.rules_of(port), *_way_in(store, network.id)),
        host_name=name,
    )


def _way_in(store: StateStore, network_id: str) -> Iterable[FirewallRule]:
    """What lets the site itself in, whatever the groups say: SSH from the network's own namespace.

    Step 49 waits for a login from there, and `fifty vm ssh` comes from there. As with Neutron's
    provider rules, for DHCP and router advertisements, no group lists it
    (`neutron.db.securitygroups_rpc_base.SecurityGroupInfoAPIMixin._apply_provider_rule`). The
    address is the DHCP port's, which no guest can use.
    """
    own = [
        IPv4Network(fixed.address)
        for port in store.ports.list(kind=PortKind.DHCP, network_id=network_id)
        for fixed in port.addresses
    ]
    if own:
        yield FirewallRule(
            direction="ingress", protocol="tcp", port_min=SSH, port_max=SSH, remotes=tuple(own)
        )


def protected(store: StateStore, ports: Iterable[Port]) -> list[PortBinding]:
    """Those of some ports that have their rules already (step 37 begun, and not undone).

    A port that has not is given the right ones when its turn comes.
    """
    found = []
    for port in ports:
        if port.device_id is None:
            continue
        try:
            build = store.builds.get(port.device_id)
        except NotFound:
            continue  # nobody's: the audit finds it
        entry = store.journal.entry(build.id, build.generation, RULES_STEP)
        if entry is not None and entry.state in (StepState.RUNNING, StepState.DONE):
            found.append(binding_of(store, port, build.name))
    return found

"""Hosts of one store: who has to know of whom, for the tunnels and for the rules."""

from __future__ import annotations

from blocks.changes import collecting
from blocks.errors import Conflict, FiftyError, HostFault, NotFound
from blocks.resources import Network, PortBinding, PortKind
from blocks.state import StateStore
from blocks.world import World
from tasks.host_report import report_address
from tasks.port_bindings import protected


def realize_here(network: Network, world: World) -> None:
    """Make a network's segment on this host, with tunnels to the hosts that it is on now.

    They learn of this one by their next look (`follow_hosts`).
    """
    report_address(world)
    store = world.store
    peers = store.networks.peers(network.id, store.host)
    world.fabric.realize_segment(network, peers, world.settings.underlay_ip)


def serve_here(network: Network, world: World) -> None:
    """Make a network's segment on this host, and what answers its guests: DHCP and metadata."""
    realize_here(network, world)
    store, fabric = world.store, world.fabric
    for dhcp_port in store.ports.list(kind=PortKind.DHCP, network_id=network.id):
        fabric.serve_dhcp(network, store.networks.subnets(network.id)[0], dhcp_port)
        fabric.serve_metadata(network)


def differences_here(network: Network, world: World) -> list[str]:
    """What of a network's segment is not on this host as recorded, its peers among it."""
    store = world.store
    peers = store.networks.peers(network.id, store.host)
    return world.fabric.segment_differences(network, peers, world.settings.underlay_ip)


def follow_hosts(world: World) -> list[str]:
    """Bring the tunnels of this host's networks to the hosts that the networks are on now.

    A port that is bound on another host changes what is to be here, and nobody there can
    do it: every host does so for itself, again and again (Neutron's agents are told by the
    server, `l2population`).

    Returns:
        The networks of which something was changed, by name.

    Raises:
        HostFault: Some could not be brought to it; the details tell. The others were.
    """
    report_address(world)
    store, followed, failures = world.store, [], []
    for build in store.builds.complete():
        if build.catalogue != "network" or store.leases.held(build.id) is not None:
            continue
        try:
            network = store.networks.get(build.id)
            astray = _is_here(network, store) and differences_here(network, world)
            if astray and _brought_up_to_date(build.id, world):
                followed.append(build.name)
        except NotFound:
            continue  # it was deleted since it was listed
        except FiftyError as error:
            failures.append(f"{build.name}: {error}")
    if failures:
        message = f"the tunnels of {len(failures)} network(s) could not be brought up to date"
        raise HostFault(message, details=failures)
    return followed


def follow_rules(world: World) -> list[str]:
    """Apply the rules of this host's ports as they are recorded now, if there are other hosts.

    A group that was changed there, or a member that came or went there, changes what is to be
    let through here (Neutron's agents are told by the server,
    `security_groups_rule_updated`). What is as recorded stays.

    Returns:
        What was changed, in words.
    """
    store = world.store
    if len(store.hosts.list()) < 2:
        return []

    def read() -> list[PortBinding]:
        ports = store.ports.list(kind=PortKind.COMPUTE)
        return protected(store, (port for port in ports if port.host == store.host))

    with collecting() as made:
        world.fabric.protect_each(read)
    return [change.what for change in made]


def _brought_up_to_date(network_id: str, world: World) -> bool:
    """Under the network's lease; False where somebody else works on it right now."""
    store = world.store
    try:
        token = store.leases.acquire(network_id, "repair")
    except Conflict:
        return False
    try:
        realize_here(store.networks.get(network_id), world)
    finally:
        store.leases.release(network_id, token)
    return True


def _is_here(network: Network, store: StateStore) -> bool:
    ports = store.ports.list(network_id=network.id)
    return network.anchor_host == store.host or any(port.host == store.host for port in ports)

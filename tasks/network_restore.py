"""A network on its host: what is missing of it there, and its routers once more."""

from __future__ import annotations

from prefect import get_run_logger, task

from blocks.changes import collecting
from blocks.fabric import NetworkFabric
from blocks.resources import Network, PortKind, Router
from blocks.state import StateStore
from tasks.network_build import NetworkBuild
from tasks.router_legs import refresh_router

#: Its journal row tells on which boot of the host the bridge was made last.
SEGMENT_STEP = 4


def lost_network(subject: NetworkBuild) -> list[str]:
    """What is missing of a network on its host; its VMs' own ports are not looked at."""
    network = subject.network
    if network.anchor_host != subject.store.host:
        return []
    if subject.store.journal.rebooted(subject.build_id, subject.generation, SEGMENT_STEP):
        return ["the host was rebooted"]
    ports = subject.store.ports.list(kind=PortKind.DHCP, network_id=network.id)
    routers = _routers(network, subject.store)
    return subject.fabric.missing(network, subject.subnet, next(iter(ports), None), routers)


def _routers(network: Network, store: StateStore) -> list[Router]:
    """The routers of this host that have a leg, or their gateway, in a network."""
    found = []
    for router in store.routers.list():
        legs = (*router.legs, *((router.gateway,) if router.gateway else ()))
        if router.host == store.host and network.id in {leg.network.id for leg in legs}:
            found.append(router)
    return found


def restore_routers(subject: NetworkBuild) -> None:
    """Make the routers of a network what is recorded, each by a task of its own.

    By the records, not by the network's request: their legs and gateways may have been
    changed since.
    """
    for router in _routers(subject.network, subject.store):
        _restore_router(router, subject.store, subject.fabric)


def _restore_router(router: Router, store: StateStore, fabric: NetworkFabric) -> None:
    def body(name: str) -> None:
        del name
        legs = (*router.legs, *((router.gateway,) if router.gateway else ()))
        with collecting() as changes:
            for leg in legs:
                # Its other networks' bridges: their own turn may come later.
                fabric.realize_segment(leg.network)
            refresh_router(router.id, store, fabric)
        for made in changes:
            get_run_logger().info("%s\n  # %s", made.what, made.command)

    body.__name__ = "restore_router"
    task(name="restore router", task_run_name=f"restore router {router.name}")(body)(router.name)

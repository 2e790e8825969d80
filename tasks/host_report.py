"""What this host says of itself in the state store."""

from __future__ import annotations

import shutil

from blocks.resources import Host
from blocks.world import World

GIB = 1024**3


def report_host(world: World) -> None:
    """Report this host's capacity and features to the state store; its heartbeat too."""
    settings = world.settings
    vcpus, ram_mib = world.hypervisor.totals()
    config = world.host_config
    world.store.hosts.report(
        Host(
            name=settings.host,
            zone=config.zone,
            vcpus=vcpus,
            ram_mib=ram_mib,
            disk_gib=shutil.disk_usage(settings.home).total // GIB,
            vcpu_ratio=config.vcpu_ratio,
            ram_ratio=config.ram_ratio,
            disk_ratio=config.disk_ratio,
            load=world.hypervisor.load(),
            features=world.hypervisor.features(),
            underlay_ip=settings.underlay_ip,
        )
    )


def report_address(world: World) -> None:
    """Report this host if the others would look for its tunnels elsewhere than they end."""
    if world.store.hosts.underlay_ip(world.store.host) != world.settings.underlay_ip:
        report_host(world)

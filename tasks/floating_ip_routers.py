"""Which routers a floating IP concerns: the one that has it, and the one that had it before.

The record says of each floating IP which router has yet to forget it; so a change that was
killed between the record and its routers is known, and ended by the next one.
"""

from __future__ import annotations

from collections.abc import Collection

from blocks.changes import record
from blocks.fabric import NetworkFabric
from blocks.resources import FloatingIp
from blocks.state import StateStore
from tasks.router_legs import refresh_router


def follow(floating_id: str, store: StateStore, fabric: NetworkFabric) -> FloatingIp:
    """Make its routers be as it is recorded, first the one that has to forget it.

    Neighbours that are told by the one that has it now have nobody else to ask then.
    """
    floating = store.floating_ips.get(floating_id)
    former = floating.former_router_id
    if former:
        refresh_router(former, store, fabric)
        store.floating_ips.forgotten(floating.id, former)
    if floating.router_id:
        refresh_router(floating.router_id, store, fabric)
    return floating


def let_go(port_ids: Collection[str], store: StateStore, fabric: NetworkFabric) -> None:
    """Detach what leads to some ports, as Neutron does where a port is deleted."""
    for floating in store.floating_ips.list():
        here = floating.port_id in port_ids
        if not here and not floating.former_router_id:
            continue
        follow(floating.id, store, fabric)
        if here and store.floating_ips.detach(floating.id):
            record(
                f"Floating IP {floating.address} leads nowhere",
                f"openstack floating ip unset --port {floating.address}",
            )
            follow(floating.id, store, fabric)

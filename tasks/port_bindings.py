"""Ports as the fabric takes them, read from the records."""

from __future__ import annotations

from collections.abc import Iterable

from blocks.errors import NotFound
from blocks.resources import Port, PortBinding
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
        rules=tuple(store.groups.rules_of(port)),
        host_name=name,
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

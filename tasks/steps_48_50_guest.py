"""Steps 48 to 50, the guest: seen on the network, ready, active."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blocks.fabric import NetworkFabric
from blocks.guest import accepts_key, banner
from blocks.hypervisor import LibvirtHost
from blocks.hypervisor.console import guest_fault
from blocks.marks import dhcp_namespace
from blocks.resources import Image, Instance, InstanceStatus, Port, PortBinding
from blocks.settings import settings
from blocks.state import Build, StateStore
from tasks.clocks import set_clock
from tasks.steps_41_47_hypervisor import FAILURE_SIGNS
from tasks.vm_build import VM

step = VM.stage("G")

POLL_S = 0.05
_ANSWER_TIMEOUT_S = 5.0
_ARP_TIMEOUT_S = 0.1


def _wait_until(
    true: Callable[[], bool],
    instance: Instance,
    console_log: Path,
    hypervisor: LibvirtHost,
    limit_s: float,
    what: str,
) -> None:
    """Wait until something about a guest is true, as long as the guest lives."""
    deadline = time.monotonic() + limit_s
    with hypervisor.looks_at_guest(instance.id, console_log, FAILURE_SIGNS, what) as look:
        while not true():
            look()
            if time.monotonic() > deadline:
                raise guest_fault(f"the guest gave no {what} within {limit_s:g} s", console_log)
            time.sleep(POLL_S)


@step(48, "See the guest on the network")
def see_guest(
    instance: Instance,
    image: Image,
    bindings: list[PortBinding],
    dhcp_ports: list[Port],
    console_log: Path,
    fabric: NetworkFabric,
    hypervisor: LibvirtHost,
) -> list[str]:
    """Wait for the guest's DHCP lease, and for its answer on each of its ports.

    A DHCP server that has died since step 32 is started again, as Neutron's agent does
    (`neutron.agent.linux.external_process.ProcessMonitor`). OpenStack has no such step;
    its guests are ACTIVE when QEMU runs.
    """
    limit = settings().address_wait_s or image.boot_timeout_s
    seen = []
    for binding, dhcp_port in zip(bindings, dhcp_ports, strict=True):
        port, network = binding.port, binding.network

        def answers(binding: PortBinding = binding, dhcp_port: Port = dhcp_port) -> bool:
            if binding.subnets[0].dhcp and fabric.lease(binding.port) is None:
                if not fabric.dhcp_runs(binding.network):
                    fabric.serve_dhcp(binding.network, binding.subnets[0], dhcp_port)
                return False
            # Asked often and briefly: a question from before the guest had its address is lost.
            return fabric.neighbour_answers(binding.port, binding.network, _ARP_TIMEOUT_S)

        _wait_until(answers, instance, console_log, hypervisor, limit, f"answer on {network.name}")
        seen.append(f"{port.addresses[0].address} on {network.name}")
    return seen


@step(49, "Wait for the guest to be ready")
def wait_for_guest(
    build: Build,
    instance: Instance,
    image: Image,
    bindings: list[PortBinding],
    key: tuple[str, str] | None,
    directory: Path,
    console_log: Path,
    hypervisor: LibvirtHost,
    store: StateStore,
) -> dict[str, Any]:
    """Wait until one can log in, and until the image's own first-boot work is done.

    SSH banner; the caller's key accepted; cloud-init's last words, or the image's marker,
    on the console. OpenStack leaves this to its users.
    """
    namespace = dhcp_namespace(bindings[0].network.id)
    address = bindings[0].port.addresses[0].address
    said: list[str] = []

    def answers() -> bool:
        words = banner(namespace, address, _ANSWER_TIMEOUT_S)
        if words is not None:
            said.append(words)
        return words is not None

    def lets_in() -> bool:
        return key is None or accepts_key(
            namespace,
            image.login_user,
            address,
            key[1],
            directory / "known_hosts",
            _ANSWER_TIMEOUT_S,
        )

    limit = settings().ready_wait_s or image.boot_timeout_s
    _wait_until(answers, instance, console_log, hypervisor, limit, "SSH banner")
    _wait_until(lets_in, instance, console_log, hypervisor, limit, "login with the key")
    set_clock(store, build, "login_s")
    marker = ""
    if image.ready_marker:
        wanted = re.compile(image.ready_marker.encode())
        marker = str(
            hypervisor.watch_console(instance.id, console_log, [wanted], FAILURE_SIGNS, limit)
        )
    return {"banner": said[-1], "key": key[0] if key else None, "marker": marker}


@step(50, "Activate the instance")
def activate(build: Build, instance: Instance, store: StateStore) -> str:
    """Make the instance ACTIVE, commit its quota, and tell the world.

    Here Nova's compute manager sets `vm_state=active` and notifies
    (`nova.compute.manager.ComputeManager._build_and_run_instance`). The event,
    `fifty.vm.active`, goes with the change of the status (see `tasks.events`).
    """
    store.quota.commit(build.id)
    store.instances.set_status(instance.id, InstanceStatus.ACTIVE)
    if instance.host:
        store.hosts.count_failure(instance.host, failed=False)
    return instance.id

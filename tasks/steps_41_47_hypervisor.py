"""Steps 41 to 47, the hypervisor: from a description to a running guest."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from blocks.errors import HostFault
from blocks.fabric import NetworkFabric
from blocks.hypervisor import GuestSpec, LibvirtHost
from blocks.hypervisor.wishes import wishes_of
from blocks.resources import Image, Instance, Port, TaskState
from blocks.settings import settings
from blocks.state import Build, StateStore
from tasks.clocks import set_clock
from tasks.image_passphrase import passphrase_of
from tasks.vm_build import VM

step = VM.stage("H")

#: How long QEMU may take to open the tap devices.
PLUG_TIMEOUT_S = 30.0
POLL_S = 0.02


@step(41, "Compose the domain")
def compose_domain(
    build: Build, spec: GuestSpec, hypervisor: LibvirtHost, store: StateStore
) -> str:
    """Write the domain's XML, with an XML library, and validate it against libvirt's schema.

    Here Nova's `LibvirtConfigGuest` does (`nova.virt.libvirt.config`).
    """
    xml = hypervisor.compose(spec)
    hypervisor.validate(xml)
    store.builds.note(build.id, xml=xml)
    return xml


def undefine_domain(build: Build, hypervisor: LibvirtHost) -> None:
    """Undefine the domain."""
    hypervisor.undefine(build.id)


@step(42, "Define the domain", undo=undefine_domain)
def define_domain(plan: dict[str, Any], hypervisor: LibvirtHost) -> None:
    """Make the domain known to libvirt: it survives a restart of the daemon from here on.

    Here Nova calls `virDomainDefineXML` (`nova.virt.libvirt.guest.Guest.create`).
    """
    hypervisor.define(plan["xml"])


@step(43, "Set resource controls")
def set_controls(instance: Instance, hypervisor: LibvirtHost) -> dict[str, Any]:
    """Set the limits that the flavor asks for: processor shares, disk and network rates.

    Here Nova writes `cputune`, `iotune` and `bandwidth` from the flavor's `quota:` extra
    specs (`nova.virt.libvirt.designer`).
    """
    hypervisor.apply_controls(instance.id, instance.flavor.limits)
    return hypervisor.controls(instance.id)


def destroy_domain(build: Build, hypervisor: LibvirtHost) -> None:
    """Stop the guest at once, as if the power was cut."""
    hypervisor.destroy(build.id)


@step(44, "Start the domain paused", undo=destroy_domain)
def start_paused(
    instance: Instance, image: Image, hypervisor: LibvirtHost, store: StateStore
) -> None:
    """Start QEMU with the guest's processors stopped.

    So the network can be checked before the guest sends its first packet. Here Nova
    starts with `VIR_DOMAIN_START_PAUSED` and waits for Neutron's event
    (`nova.virt.libvirt.driver.LibvirtDriver._create_guest_with_network`).
    """
    store.instances.update(instance.id, task_state=TaskState.SPAWNING)
    hypervisor.start_paused(instance.id, passphrase_of(image))


@step(45, "Wait for the port to be plugged")
def wait_for_plug(
    instance: Instance,
    ports: list[Port],
    console_log: Path,
    fabric: NetworkFabric,
    hypervisor: LibvirtHost,
) -> list[str]:
    """Wait until every tap has a carrier: QEMU holds it.

    Here Nova waits for Neutron's `network-vif-plugged` event.
    """
    deadline = time.monotonic() + PLUG_TIMEOUT_S
    waiting = list(ports)
    while waiting:
        waiting = [port for port in waiting if not fabric.carrier(port)]
        state = hypervisor.state(instance.id) if waiting else None
        if waiting and state not in ("paused", "running"):
            words = f"the guest is {state or 'gone'}, before QEMU has opened its taps"
            raise hypervisor.ended(instance.id, words, console_log)
        if waiting and time.monotonic() > deadline:
            taps = ", ".join(port.tap or "" for port in waiting)
            raise HostFault(f"QEMU did not open {taps} within {PLUG_TIMEOUT_S:g} s")
        if waiting:
            time.sleep(POLL_S)
    return [port.tap or "" for port in ports]


@step(46, "Let the guest run")
def let_run(build: Build, instance: Instance, hypervisor: LibvirtHost, store: StateStore) -> None:
    """Start the guest's processors.

    Here Nova calls `virDomainResume`. Undone by step 44's undo: there is one guest to stop.
    """
    hypervisor.resume(instance.id)
    set_clock(store, build, "running_s")
    store.instances.update(instance.id, task_state=TaskState.BOOTING)


#: The first words of a userland on its console: the kernel has come up and found its root.
INIT_SIGNS = (
    re.compile(rb"FIFTY-MARK init"),
    re.compile(rb"Cloud-init v\. \S+ running"),
    re.compile(rb"Welcome to (?!GRUB).*!"),
    re.compile(rb" login: "),
)
#: Windows has no word for a serial console, unless EMS is on: the firmware's last ones, when it
#: has found something to start, and those of EMS.
WINDOWS_SIGNS = (
    re.compile(rb"Booting from Hard Disk"),
    re.compile(rb"BdsDxe: starting Boot"),
    re.compile(rb"SAC>"),
)
FAILURE_SIGNS = (
    re.compile(rb"Kernel panic - not syncing[^\r\n]*"),
    re.compile(rb"No bootable device"),
    re.compile(rb"Unable to mount root fs[^\r\n]*"),
    re.compile(rb"FIFTY-MARK error[^\r\n]*"),
)


@step(47, "Watch the boot")
def watch_boot(
    build: Build,
    instance: Instance,
    image: Image,
    console_log: Path,
    hypervisor: LibvirtHost,
    store: StateStore,
) -> str:
    """Follow the serial console until the guest's init speaks; a panic is an error.

    Of Windows, until the firmware has found its boot loader: steps 48 and 49 tell the rest.

    OpenStack keeps the log for `openstack console log show`, and looks at none of it.
    """
    limit = settings().boot_wait_s or image.boot_timeout_s
    signs = WINDOWS_SIGNS if wishes_of(image).system == "windows" else INIT_SIGNS
    event = hypervisor.watch_console(instance.id, console_log, signs, FAILURE_SIGNS, limit)
    set_clock(store, build, "booted_s")
    return str(event)

"""This host's libvirt: what it can do, guests composed for it, and their lives."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import libvirt
from lxml import etree

from blocks.errors import NO_ROOM_HINT, FiftyError, HostFault, InvalidRequest
from blocks.hypervisor import console, controls, port_rates
from blocks.hypervisor.capabilities import (
    MACHINE,
)
from blocks.hypervisor.connection import Connection
from blocks.hypervisor.disk_chain import backing_chain
from blocks.hypervisor.domain_xml import compose_domain
from blocks.hypervisor.guest import GuestSpec, InterfaceSpec
from blocks.hypervisor.offers import Offers
from blocks.hypervisor.secrets import Passphrases, secret_id
from blocks.hypervisor.specify import specify
from blocks.resources import FlavorLimits, Image, Instance, PortBinding, Volume

T = TypeVar("T")

_SCHEMA = Path("/usr/share/libvirt/schemas/domain.rng")


class LibvirtHost(Offers):
    """The hypervisor of a host; connects when it is first used, and may be shared by threads.

    Args:
        uri: libvirt's connection URI.
        accelerator: `auto`, or `kvm` or `tcg`, which insist.
        site: Whose domains are touched: those with this site's mark.
    """

    def __init__(
        self, uri: str = "qemu:///system", accelerator: str = "auto", site: str = "0000"
    ) -> None:
        super().__init__(Connection(uri), site, accelerator)
        self.passphrases = Passphrases(self.connection, site)

    def guest_spec(
        self,
        instance: Instance,
        bindings: Sequence[PortBinding],
        volumes: Sequence[Volume],
        directory: Path,
        image: Image | None = None,
        *,
        machine: str = MACHINE,
        cpu_model: str | None = None,
    ) -> GuestSpec:
        """The specification of an instance's guest, checked against what this host can do.

        Nova does it in `LibvirtDriver._get_guest_config`.

        Args:
            instance: The instance, with its flavor.
            bindings: Its ports in order, with MAC address, tap and network.
            volumes: Its data volumes, with their paths.
            directory: The instance's directory.
            image: Its image, whose system and properties (see `wishes`) are looked at.
            machine: The machine type.
            cpu_model: A model that libvirt knows, or `maximum`; none means the quickest
                one here: the host's own with KVM, `qemu64` under emulation.

        Raises:
            Unsupported: This host lacks something; the message names it.
            Conflict: A port or volume is not complete yet.
        """
        controls.check(instance.flavor.limits)
        return specify(
            self.capabilities(),
            self.site,
            instance,
            bindings,
            volumes,
            directory,
            image,
            machine,
            cpu_model,
        )

    def compose(self, spec: GuestSpec) -> str:
        """The domain's XML; the disks must be there, as their backing files are read.

        Raises:
            HostFault: A disk is not there.
            UnsafeImage: What lies below a disk does not say its format.
        """
        return compose_domain(spec, {disk.target: backing_chain(disk) for disk in spec.disks})

    def validate(self, xml: str) -> None:
        """Check a definition by libvirt's schema, and by QEMU's driver without defining it.

        Raises:
            InvalidRequest: It breaks the schema.
            Unsupported: This QEMU cannot do it.
            HostFault: libvirt's driver refuses it.
        """
        document = etree.fromstring(xml.encode())
        if _SCHEMA.exists():
            schema = etree.RelaxNG(etree.parse(_SCHEMA))
            if not schema.validate(document):
                findings = [f"line {one.line}: {one.message}" for one in schema.error_log]
                raise InvalidRequest(
                    f"the domain's XML breaks libvirt's schema: {findings[0]}", details=findings
                )
        with self._any_passphrase(document.findtext("uuid"), xml):
            self.connection.call(
                "translate the definition for QEMU",
                lambda conn: conn.domainXMLToNative("qemu-argv", xml, 0),
            )

    def start_paused(self, instance_id: str, passphrase: str | None = None) -> None:
        """Start QEMU with the guest's processors stopped, and its ports at their rates.

        QEMU's start puts a fresh queue on each tap, so the rates are set again after it.

        Args:
            instance_id: The instance.
            passphrase: Of its encrypted disk; libvirt knows it during the start only.
        """
        knows: AbstractContextManager[None] = nullcontext()
        if passphrase is not None:
            knows = self.passphrases.told(instance_id, passphrase)
        with knows:
            super().start_paused(instance_id)
        self._set_rates(instance_id)

    def attach_interface(self, instance_id: str, interface: InterfaceSpec) -> None:
        """Plug an interface into a guest, at its ports' rate; see `Interfaces`."""
        super().attach_interface(instance_id, interface)
        self._set_rates(instance_id)

    def detach_interface(
        self, instance_id: str, interface: InterfaceSpec, timeout_s: float = 60.0
    ) -> None:
        """Unplug an interface from a guest, and lift its rate; see `Interfaces`."""
        super().detach_interface(instance_id, interface, timeout_s)
        port_rates.forget_port(self.site, instance_id, interface.tap)

    def undefine(self, instance_id: str) -> None:
        """Stop a guest if it runs, make libvirt forget it, and lift its ports' rates.

        Also the passphrase that a start knew which was killed.
        """
        xml = self.definition(instance_id)
        if xml and secret_id(instance_id) in xml:
            self.passphrases.forget(instance_id)
        super().undefine(instance_id)
        port_rates.forget(self.site, instance_id, controls.taps_of(xml) if xml else ())

    def apply_controls(self, instance_id: str, limits: FlavorLimits) -> None:
        """Set what the flavor limits: processor, memory, disks, network.

        Before the start it goes into the definition, on a running guest also into effect;
        the network's rates are in effect at once. The taps must be there.

        Raises:
            Unsupported: The flavor asks for a limit that this host cannot set.
            HostFault: There is no such domain.
        """
        controls.check(limits)
        self._with(instance_id, "set the limits", lambda domain: controls.apply(domain, limits))
        self._set_rates(instance_id)

    def controls(self, instance_id: str) -> dict[str, Any]:
        """A guest's limits as libvirt and the kernel tell them; see `controls.read`.

        Raises:
            HostFault: There is no such domain.
        """
        return self._with(instance_id, "read the limits", controls.read)

    def watch_console(
        self,
        instance_id: str,
        log: Path,
        wanted: Sequence[re.Pattern[bytes]],
        failing: Sequence[re.Pattern[bytes]],
        timeout_s: float,
    ) -> console.ConsoleEvent:
        """Wait until a guest says one of several things; see `console.watch_console`.

        Raises:
            GuestFault: It fails, ends, or says nothing of it in time.
            HostFault: It was ended by this host; see `ended`.
        """

        def ended(message: str, log: Path) -> FiftyError:
            return self.ended(instance_id, message, log)

        return console.watch_console(
            log, wanted, failing, timeout_s, lambda: self.state(instance_id) == "running", ended
        )

    @contextmanager
    def looks_at_guest(
        self, instance_id: str, log: Path, failing: Sequence[re.Pattern[bytes]], what: str
    ) -> Iterator[Callable[[], None]]:
        """Looks at a guest, to be repeated while something else of it is waited for.

        Args:
            instance_id: Whose.
            log: Its console's log.
            failing: What it says there when it has failed.
            what: What is waited for.

        Yields:
            The look. It raises GuestFault when the guest has said such a thing or has
            ended, HostFault when it was ended by this host.
        """
        with console.failures(log, failing) as look_at_console:

            def look() -> None:
                state = self.state(instance_id)
                look_at_console()
                if state != "running":
                    words = f"the guest is {state or 'gone'}, while waiting for {what}"
                    raise self.ended(instance_id, words, log)

            yield look

    def ended(self, instance_id: str, message: str, log: Path) -> FiftyError:
        """The error of a guest that does not run any more: this host's, or its own.

        Args:
            instance_id: Whose.
            message: What is known already.
            log: Its console's log, whose last lines are the details.
        """
        last = console.tail(log)
        match self.state(instance_id):
            case "crashed":
                hint = "`dmesg` tells of a want of memory; QEMU's log is in /var/log/libvirt/qemu"
                return HostFault(f"{message}: QEMU has died", hint=hint, details=last)
            case "stalled":
                why = "the host could not store what it wrote"
                return HostFault(f"{message}: {why}", hint=NO_ROOM_HINT, details=last)
        return console.guest_fault(message, log)

    def _any_passphrase(self, instance_id: str | None, xml: str) -> AbstractContextManager[None]:
        """A passphrase, where libvirt translates nothing without: nothing is opened by it."""
        if instance_id is None or secret_id(instance_id) not in xml:
            return nullcontext()
        return self.passphrases.told(instance_id, "any")

    def _set_rates(self, instance_id: str) -> None:
        taps, kib_s = self._with(instance_id, "read the ports", controls.ports)
        if kib_s is not None:
            for tap in taps:
                port_rates.limit(self.site, instance_id, tap, kib_s)

    def _with(self, instance_id: str, what: str, operation: Callable[[libvirt.virDomain], T]) -> T:
        """Do something with a domain that must be there."""

        def run(conn: libvirt.virConnect) -> T:
            domain = self._find(conn, instance_id)
            if domain is None:
                raise HostFault(f"libvirt knows no domain of the instance {instance_id}")
            return operation(domain)

        return self.connection.call(f"{what} of {instance_id}", run)

"""A domain's life: defined, started paused, resumed, stopped, undefined.

Every call finds the domain by the instance's id, its UUID, and takes "already so" and
"already gone" as success. A domain without our site's mark is never touched.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import libvirt
from lxml import etree

from blocks import ages, changes
from blocks.errors import Conflict, HostFault
from blocks.hypervisor import disk_layers
from blocks.hypervisor.connection import Connection
from blocks.hypervisor.domain_mark import mark_of, mark_of_xml
from blocks.inventory import Found

_STATES = {
    libvirt.VIR_DOMAIN_RUNNING: "running",
    libvirt.VIR_DOMAIN_BLOCKED: "running",
    libvirt.VIR_DOMAIN_PAUSED: "paused",
    libvirt.VIR_DOMAIN_SHUTDOWN: "shutdown",
    libvirt.VIR_DOMAIN_SHUTOFF: "shutoff",
    libvirt.VIR_DOMAIN_CRASHED: "crashed",
    libvirt.VIR_DOMAIN_PMSUSPENDED: "suspended",
}
#: Where the reason tells more than the state does.
_WHY = {
    (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_CRASHED): "crashed",
    (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_FAILED): "crashed",
    (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR): "stalled",
}
_UNDEFINE = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)
INACTIVE = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
#: What libvirt's system daemon keeps of a domain, and of one that is running.
_KEPT = ("/etc/libvirt/qemu/{}.xml", "/run/libvirt/qemu/{}.pid")


class Domains:
    """The domains of one site on one host.

    Args:
        connection: The connection to libvirt.
        site: Whose domains.
    """

    def __init__(self, connection: Connection, site: str) -> None:
        self.connection = connection
        self.site = site

    def define(self, xml: str) -> None:
        """Make libvirt know a domain.

        The same definition again changes nothing: what was set meanwhile (controls) stays. Of
        another one the root disk's layer is not taken: the domain's holds what a guest wrote.

        Raises:
            Conflict: Another's domain has this id or this name.
        """
        wanted = etree.fromstring(xml.encode())
        instance_id, name = wanted.findtext("uuid") or "", wanted.findtext("name") or ""

        def define(conn: libvirt.virConnect) -> bool:
            domain = self._find(conn, instance_id)
            if domain is not None and mark_of(domain) == mark_of_xml(wanted):
                return False
            present = domain.XMLDesc(INACTIVE) if domain is not None else None
            disk_layers.keep_layers(wanted, etree.fromstring(present) if present else None)
            conn.defineXML(etree.tostring(wanted, encoding="unicode"))
            return True

        if self.connection.call(f"define the domain {name}", define):
            changes.record(f"Defined the domain {name}", ["virsh", "define", f"{name}.xml"])

    def undefine(self, instance_id: str) -> None:
        """Make libvirt forget a domain, with its saved state, snapshots and NVRAM.

        A domain that still runs is stopped before, lest it goes on without a definition.
        """
        self.destroy(instance_id)

        def undefine(domain: libvirt.virDomain) -> bool:
            # A transient domain (its definition was removed by others) ends with its stop.
            domain.undefineFlags(_UNDEFINE)
            return True

        self._change(
            instance_id,
            "undefine",
            undefine,
            "Undefined the domain {}",
            ["undefine", "--managed-save", "--snapshots-metadata", "--checkpoints-metadata"],
        )

    def start_paused(self, instance_id: str) -> None:
        """Start QEMU with the guest's processors stopped; running or paused already is fine.

        Raises:
            HostFault: There is no such domain, or QEMU did not start.
        """

        def start(domain: libvirt.virDomain) -> bool:
            if domain.isActive():
                return False
            domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
            return True

        self._need(instance_id)
        self._change(instance_id, "start", start, "Started {} paused", ["start", "--paused"])

    def resume(self, instance_id: str) -> None:
        """Let a paused guest run; already running is fine.

        Raises:
            HostFault: It is neither paused nor running.
        """

        def resume(domain: libvirt.virDomain) -> bool:
            state = _state(domain)
            if state == "running":
                return False
            if state != "paused":
                raise HostFault(
                    f"the domain {domain.name()} is {state}, it cannot be resumed",
                    hint="start it again; its log is in /var/log/libvirt/qemu",
                )
            domain.resume()
            return True

        self._need(instance_id)
        self._change(instance_id, "resume", resume, "Let {} run", ["resume"])

    def destroy(self, instance_id: str) -> None:
        """Stop a guest at once, as if its power was cut; stopped or gone is fine.

        Raises:
            Transient: QEMU has not ended yet (the host is busy, or its storage hangs).
        """

        def destroy(domain: libvirt.virDomain) -> bool:
            if not domain.isActive():
                return False
            domain.destroy()
            return True

        self._change(instance_id, "destroy", destroy, "Stopped {}", ["destroy"])

    def shutdown(self, instance_id: str) -> None:
        """Press the guest's power button (ACPI); stopped or gone is fine.

        Returns at once: the guest decides when it is off, and whether at all.
        """

        def press(domain: libvirt.virDomain) -> bool:
            if _state(domain) != "running":
                return False
            domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
            return True

        self._change(
            instance_id, "shut down", press, "Pressed the power button of {}", ["shutdown"]
        )

    def state(self, instance_id: str) -> str | None:
        """What a domain does.

        Returns:
            `running`, `paused`, `shutdown` (on its way), `shutoff`, `crashed` (the kernel
            panicked, or QEMU died), `stalled` (by QEMU: no room for what the guest wrote),
            `suspended`, or None: there is no such domain.
        """
        return self.connection.call(
            f"look at the domain of {instance_id}",
            lambda conn: _if_there(self._find(conn, instance_id), _state),
        )

    def definition(self, instance_id: str) -> str | None:
        """A domain's XML as it is now (live where it runs), or None: there is none."""

        def read(domain: libvirt.virDomain) -> str:
            return str(domain.XMLDesc(0))

        return self.connection.call(
            f"read the definition of {instance_id}",
            lambda conn: _if_there(self._find(conn, instance_id), read),
        )

    def inventory(self) -> list[Found]:
        """The domains that carry this site's mark, by name."""

        def look(conn: libvirt.virConnect) -> list[Found]:
            found = []
            for domain in conn.listAllDomains(0):
                try:
                    if mark_of(domain).get("site") == self.site:
                        found.append(_found(domain))
                except libvirt.libvirtError as error:
                    # Undefined between the list and the look.
                    if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                        raise
            return sorted(found, key=lambda one: one.name)

        return self.connection.call("list the domains", look)

    def remove(self, found: Found) -> None:
        """Stop and undefine a domain that the inventory told of.

        Raises:
            Conflict: It does not carry our mark.
        """
        if found.kind != "domain":
            raise Conflict(f"the hypervisor has no {found.kind} to remove ({found.name})")
        self.undefine(found.owner)

    def _need(self, instance_id: str) -> None:
        if self.state(instance_id) is None:
            raise HostFault(
                f"libvirt knows no domain of the instance {instance_id}", hint="define it first"
            )

    def _find(self, conn: libvirt.virConnect, instance_id: str) -> libvirt.virDomain | None:
        """The domain with this UUID, or None; it must be ours."""
        try:
            domain = conn.lookupByUUIDString(instance_id)
            mark = mark_of(domain)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise
        if mark.get("site") != self.site:
            raise Conflict(
                f"the domain {domain.name()} has the instance's id, but not this site's mark",
                hint="look at it with `virsh dumpxml`; it is somebody else's",
            )
        return domain

    def _change(
        self,
        instance_id: str,
        verb: str,
        operation: Callable[[libvirt.virDomain], bool],
        words: str,
        command: list[str],
    ) -> None:
        """Do something to a domain, if it is there, and record it if that changed something."""

        def run(conn: libvirt.virConnect) -> str | None:
            domain = self._find(conn, instance_id)
            if domain is None:
                return None
            name = str(domain.name())
            try:
                return name if operation(domain) else None
            except libvirt.libvirtError as error:
                if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                    return None
                raise

        name = self.connection.call(f"{verb} the domain of {instance_id}", run)
        if name is not None:
            changes.record(words.format(name), ["virsh", command[0], name, *command[1:]])


def _if_there(
    domain: libvirt.virDomain | None, function: Callable[[libvirt.virDomain], str]
) -> str | None:
    if domain is None:
        return None
    try:
        return function(domain)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise


def _state(domain: libvirt.virDomain) -> str:
    number, reason = domain.state()
    return _WHY.get((number, reason)) or _STATES.get(number, "unknown")


def _found(domain: libvirt.virDomain) -> Found:
    name, owner = domain.name(), domain.UUIDString()
    return Found(kind="domain", name=name, owner=owner, age_s=_age_s(name), detail=_state(domain))


def _age_s(name: str) -> float | None:
    """How old a domain is; of a transient one, its process."""
    known = (ages.of_file(Path(kept.format(name))) for kept in _KEPT)
    return next((age for age in known if age is not None), None)

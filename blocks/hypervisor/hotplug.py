"""Devices plugged into, and unplugged from, a guest that is there already.

Live and in the definition, so that it is the same after the guest's next start. Found by the
device's alias (`ua-...`), which libvirt keeps in both.

Plugging in is done when libvirt says so: QEMU has the device and what is behind it open.
Unplugging is a request to the guest's system, which lets go of the device when it likes, or
never where it does not run: that is waited for, as Nova does (`nova.virt.libvirt.driver`,
`_detach_with_retry`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import libvirt
from lxml import etree

from blocks import changes
from blocks.errors import Conflict, HostFault, Transient
from blocks.hypervisor.domains import Domains

#: How long a guest may take to let go of a device before it is asked once more.
_ASK_AGAIN_S = 10.0
_POLL_S = 0.1
#: QEMU's words: it was asked already, and the guest has not answered yet.
_UNDER_WAY = "in the process of unplug"
_NO_SLOT = "No more available PCI"

#: libvirt's flag for each layer, with virsh's option for it; the one that counts now first.
_LIVE = (libvirt.VIR_DOMAIN_AFFECT_LIVE, "--live")
_CONFIG = (libvirt.VIR_DOMAIN_AFFECT_CONFIG, "--config")

_Operation = Callable[[libvirt.virConnect], list[str]]


@dataclass(frozen=True)
class Device:
    """A device that can be plugged into a guest.

    Attributes:
        kind: Its element in the domain's XML.
        name: What it is called in messages.
        alias: What it is found by.
        identity: What tells it from another one of this alias; see `identity_of`.
        xml: Its element as libvirt takes it.
        unplug: virsh's command that takes it out, the domain's name left out.
    """

    kind: Literal["interface", "disk"]
    name: str
    alias: str
    identity: tuple[str, str]
    xml: str
    unplug: tuple[str, ...]


class Devices(Domains):
    """The devices of this site's domains."""

    def attach_device(self, instance_id: str, device: Device) -> None:
        """Plug a device into a guest; there already as specified is fine.

        Args:
            instance_id: Whose. Where it does not run, the definition alone is changed.
            device: What it stands on (a tap, a file) must be there.

        Raises:
            HostFault: There is no such domain.
            Conflict: The guest has no free PCIe root port any more, or has a device of this
                alias that is another one.
        """

        def attach(conn: libvirt.virConnect) -> list[str]:
            domain = self._domain(conn, instance_id)
            done = []
            for flags, word in _layers(domain):
                there = _find(domain, flags, device)
                if there is None:
                    _attach(domain, device.xml, flags)
                    done.append(word)
                elif identity_of(there) != device.identity:
                    raise Conflict(
                        f"{domain.name()} has another {device.kind} {device.alias}: "
                        f"{identity_of(there)}"
                    )
            return [str(domain.name()), *done] if done else []

        self._record(
            f"attach {device.name} to the domain of {instance_id}",
            attach,
            f"Plugged {device.name} into",
            ["attach-device", f"{device.name}.xml"],
        )

    def detach_device(self, instance_id: str, device: Device, timeout_s: float) -> None:
        """Unplug a device from a guest, and wait until it is gone; already gone is fine.

        The definition goes first: whatever the guest does, the next start is without it.

        Raises:
            Transient: The guest has not let go of it in time.
        """
        self._record(
            f"detach {device.name} from the definition of {instance_id}",
            lambda conn: self._ask(conn, instance_id, device, (_CONFIG,)),
            f"Took {device.name} out of the definition of",
            list(device.unplug),
        )
        deadline = time.monotonic() + timeout_s
        ask_again = time.monotonic()
        asked = False
        while self._plugged(instance_id, device):
            now = time.monotonic()
            if now >= deadline:
                raise Transient(
                    f"the guest has not let go of {device.name} within {timeout_s:g} s",
                    hint="its system must be up to do so; once the VM is stopped, it is gone",
                )
            if now >= ask_again:
                self.connection.call(
                    f"detach {device.name} from the domain of {instance_id}",
                    lambda conn: self._ask(conn, instance_id, device, (_LIVE,)),
                )
                asked, ask_again = True, time.monotonic() + _ASK_AGAIN_S
            else:
                time.sleep(_POLL_S)
        if asked:
            verb, *rest = device.unplug
            changes.record(
                f"Unplugged {device.name}", ["virsh", verb, instance_id, *rest, "--live"]
            )

    def _ask(
        self,
        conn: libvirt.virConnect,
        instance_id: str,
        device: Device,
        wanted: tuple[tuple[int, str], ...],
    ) -> list[str]:
        """Have libvirt unplug it in these layers, as far as it is there."""
        domain = self._find(conn, instance_id)
        if domain is None:
            return []
        done = []
        for flags, word in _layers(domain):
            there = _find(domain, flags, device) if (flags, word) in wanted else None
            if there is None:
                continue
            text = etree.tostring(there, encoding="unicode")
            try:
                domain.detachDeviceFlags(text, flags)
            except libvirt.libvirtError as error:
                code = error.get_error_code()
                # Stopped meanwhile: whoever waits looks again.
                gone = code in (libvirt.VIR_ERR_DEVICE_MISSING, libvirt.VIR_ERR_NO_DOMAIN) or (
                    (flags, word) == _LIVE and code == libvirt.VIR_ERR_OPERATION_INVALID
                )
                if not gone and _UNDER_WAY not in str(error):
                    raise
            else:
                done.append(word)
        return [str(domain.name()), *done] if done else []

    def _plugged(self, instance_id: str, device: Device) -> bool:
        """Whether a guest that runs has the device."""

        def look(conn: libvirt.virConnect) -> bool:
            domain = self._find(conn, instance_id)
            if domain is None or not domain.isActive():
                return False
            return _find(domain, _LIVE[0], device) is not None

        return self.connection.call(f"look at the domain of {instance_id}", look)

    def _domain(self, conn: libvirt.virConnect, instance_id: str) -> libvirt.virDomain:
        domain = self._find(conn, instance_id)
        if domain is None:
            raise HostFault(f"libvirt knows no domain of the instance {instance_id}")
        return domain

    def _record(self, what: str, operation: _Operation, words: str, command: list[str]) -> None:
        """Do something that tells the domain's name and the layers it has changed."""
        changed = self.connection.call(what, operation)
        if changed:
            name, *layers = changed
            verb, *rest = command
            changes.record(f"{words} {name}", ["virsh", verb, name, *rest, *layers])


def identity_of(element: etree._Element) -> tuple[str, str]:
    """An interface's MAC address and tap; a disk's file and the guest's name for it."""
    which = ("source", "file") if element.tag == "disk" else ("mac", "address")
    first, target = element.find(which[0]), element.find("target")
    return (
        str(first.get(which[1])) if first is not None else "",
        str(target.get("dev")) if target is not None else "",
    )


def _layers(domain: libvirt.virDomain) -> Iterator[tuple[int, str]]:
    if domain.isActive():
        yield _LIVE
    if domain.isPersistent():
        yield _CONFIG


def _find(domain: libvirt.virDomain, flags: int, device: Device) -> etree._Element | None:
    """The device of this alias, in the live or in the persistent definition."""
    inactive = libvirt.VIR_DOMAIN_XML_INACTIVE if flags == _CONFIG[0] else 0
    xml = etree.fromstring(str(domain.XMLDesc(inactive)))
    for element in xml.findall(f"devices/{device.kind}"):
        name = element.find("alias")
        if name is not None and name.get("name") == device.alias:
            return element
    return None


def _attach(domain: libvirt.virDomain, text: str, flags: int) -> None:
    try:
        domain.attachDeviceFlags(text, flags)
    except libvirt.libvirtError as error:
        if _NO_SLOT not in str(error):
            raise
        raise Conflict(
            f"{domain.name()} has no free slot for another device",
            hint="unplug one, or stop and start the VM: a start gives it new slots",
        ) from error

"""The root disk of a guest as libvirt has it: which layer is on top, and putting another there."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import libvirt
from lxml import etree

from blocks import changes
from blocks.errors import Conflict, HostFault, Transient
from blocks.hypervisor import disk_layers
from blocks.hypervisor.domains import INACTIVE, Domains

T = TypeVar("T")

_POLL_S = 0.05
#: How long the job of somebody who was stopped (a snapshot with memory) may go on.
_JOB_S = 600.0


class RootDisk(Domains):
    """The root disks of this site's domains, found by the instance's id.

    What libvirt's definition of the domain says is the truth: it changes with the disk.
    """

    def top(self, instance_id: str) -> Path:
        """The layer that the guest writes, or will write when it is started.

        Raises:
            HostFault: libvirt knows no such domain.
        """
        return self._on(instance_id, "read the disk", files)[0]

    def switch(self, instance_id: str, layer: Path) -> None:
        """Have a guest that is off be on a layer, and on all that is below it; so already is fine.

        Raises:
            Conflict: It runs.
        """

        def define(domain: libvirt.virDomain) -> bool:
            if files(domain) == disk_layers.chain_of(layer):
                return False
            if domain.isActive():
                raise Conflict(f"{domain.name()} runs", hint="it has to be off")
            xml = etree.fromstring(domain.XMLDesc(INACTIVE))
            disk_layers.put_into(disk_layers.root_disk(xml), layer)
            domain.connect().defineXML(etree.tostring(xml, encoding="unicode"))
            return True

        if self._on(instance_id, "change the disk", define):
            changes.record(f"Put the guest on {layer.name}", ["virsh", "edit", instance_id])

    def runs(self, instance_id: str) -> bool:
        """Whether there is a QEMU for it: running, or paused.

        Raises:
            HostFault: libvirt knows no such domain.
        """
        return self._on(instance_id, "look at the domain", lambda one: bool(one.isActive()))

    def _settled_top(self, instance_id: str) -> Path:
        """The layer on top, once no job of somebody who was stopped goes on any more."""
        deadline = time.monotonic() + _JOB_S
        while self._on(instance_id, "look for a job", _at_work):
            if time.monotonic() > deadline:
                raise Transient(f"libvirt is still at work on {instance_id}")
            time.sleep(_POLL_S)
        return self.top(instance_id)

    def _on(self, instance_id: str, what: str, operation: Callable[[libvirt.virDomain], T]) -> T:
        """Do something with a domain that must be there."""

        def run(conn: libvirt.virConnect) -> T:
            domain = self._find(conn, instance_id)
            if domain is None:
                raise HostFault(
                    f"libvirt knows no domain of the instance {instance_id}",
                    hint="`fifty vm start` defines it again",
                )
            return operation(domain)

        return self.connection.call(f"{what} of {instance_id}", run)


def files(domain: libvirt.virDomain) -> list[Path]:
    """The files of the root disk, the one on top first."""
    return disk_layers.files_of(disk_layers.root_disk(etree.fromstring(domain.XMLDesc())))


def device(domain: libvirt.virDomain) -> str:
    """The root disk's device: `vda`, or `sda`."""
    target = disk_layers.root_disk(etree.fromstring(domain.XMLDesc())).find("target")
    if target is None:
        raise HostFault("the root disk is no device", hint="look at it with `virsh dumpxml`")
    return str(target.get("dev"))


def describe(
    domain: libvirt.virDomain, name: str, how: str
) -> tuple[etree._Element, etree._Element]:
    """A snapshot's XML in which each disk but the root disk is no part of it.

    Args:
        domain: Whose.
        name: What libvirt calls the snapshot.
        how: `internal` or `external`.

    Returns:
        The XML, and the root disk's element in it.
    """
    root = etree.Element("domainsnapshot")
    etree.SubElement(root, "name").text = name
    disks = etree.SubElement(root, "disks")
    own = etree.SubElement(disks, "disk", name=device(domain), snapshot=how)
    for target in etree.fromstring(domain.XMLDesc()).findall("devices/disk/target"):
        if target.get("dev") != own.get("name"):
            etree.SubElement(disks, "disk", name=str(target.get("dev")), snapshot="no")
    return root, own


def _at_work(domain: libvirt.virDomain) -> bool:
    return bool(domain.isActive() and domain.jobInfo()[0] != libvirt.VIR_DOMAIN_JOB_NONE)

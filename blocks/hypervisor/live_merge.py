"""Merging a layer of a disk that a running guest has open: QEMU does it, by libvirt's block jobs.

`virDomainBlockCommit`'s documentation tells of the two kinds: a layer in the middle is gone
from the chain when the job is; of the layer on top QEMU copies until it has caught up, says
that it is ready, and goes over to the lower file when it is told to (the pivot).
"""

from __future__ import annotations

from pathlib import Path

import libvirt
from lxml import etree

from blocks.hypervisor import disk_layers
from blocks.hypervisor.root_disk import device, files


def begin(domain: libvirt.virDomain, layer: Path, into: Path) -> None:
    """Begin to merge a layer into the one below it, unless that is under way."""
    name = device(domain)
    if domain.blockJobInfo(name):
        return
    if files(domain)[0] == layer:
        flags = libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE
        domain.blockCommit(name, str(into), None, 0, flags)
    else:
        domain.blockCommit(name, str(into), str(layer), 0, 0)


def is_over(domain: libvirt.virDomain) -> bool:
    """Whether a merge is through; one of the layer on top is ended where it has caught up."""
    name = device(domain)
    job = domain.blockJobInfo(name)
    if not job:
        return True
    if _ready(domain):
        domain.blockJobAbort(name, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
    return False


def _ready(domain: libvirt.virDomain) -> bool:
    """Whether QEMU has said that it has caught up."""
    disk = disk_layers.root_disk(etree.fromstring(domain.XMLDesc()))
    mirror = disk.find("mirror")
    return mirror is not None and mirror.get("ready") == "yes"

"""The hypervisor: libvirt and QEMU on this host, and the directories of its guests."""

from blocks.hypervisor.console import ConsoleEvent, milestones, tail
from blocks.hypervisor.guest import GuestSpec
from blocks.hypervisor.host import LibvirtHost
from blocks.hypervisor.identity import qemu_identity
from blocks.hypervisor.instance_dirs import InstanceDirectories
from blocks.hypervisor.specify import interface_spec, volume_disk

__all__ = [
    "ConsoleEvent",
    "GuestSpec",
    "InstanceDirectories",
    "LibvirtHost",
    "interface_spec",
    "milestones",
    "qemu_identity",
    "tail",
    "volume_disk",
]

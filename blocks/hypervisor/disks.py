"""Data disks plugged into, and unplugged from, a guest that is there already."""

from __future__ import annotations

from blocks.hypervisor.disk_chain import backing_chain
from blocks.hypervisor.domain_xml import compose_disk
from blocks.hypervisor.guest import DiskSpec
from blocks.hypervisor.hotplug import Device
from blocks.hypervisor.interfaces import Interfaces


class Disks(Interfaces):
    """The data disks of this site's domains."""

    def attach_disk(self, instance_id: str, disk: DiskSpec) -> None:
        """Plug a disk into a guest; there already as specified is fine.

        Args:
            instance_id: Whose. Where it does not run, the definition alone is changed.
            disk: Its file must be there.

        Raises:
            HostFault: There is no such domain, or no such file.
            Conflict: The guest has no free PCIe root port any more, or has a disk of this
                alias that is another one.
        """
        self.attach_device(instance_id, _device(disk, compose_disk(disk, backing_chain(disk))))

    def detach_disk(self, instance_id: str, disk: DiskSpec, timeout_s: float = 60.0) -> None:
        """Unplug a disk from a guest, and wait until it is gone; already gone is fine.

        Raises:
            Transient: The guest has not let go of it in time: it may be mounted.
        """
        self.detach_device(instance_id, _device(disk, ""), timeout_s)


def _device(disk: DiskSpec, xml: str) -> Device:
    return Device(
        kind="disk",
        name=disk.target,
        alias=disk.alias,
        identity=(str(disk.path), disk.target),
        xml=xml,
        unplug=("detach-disk", disk.target),
    )

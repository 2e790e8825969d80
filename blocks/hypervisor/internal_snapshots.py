"""Snapshots inside of a guest's qcow2 file, as libvirt makes and keeps them.

Of a guest that runs they hold its memory, too. All disks that can be written have to be a
part of them in libvirt 9.0: a guest with volumes can have none, as volumes are never a part.
libvirt reverts to one with memory by starting QEMU anew.
"""

from __future__ import annotations

import libvirt
from lxml import etree

from blocks import changes
from blocks.hypervisor.root_disk import RootDisk, describe


class InternalSnapshots(RootDisk):
    """The internal snapshots of this site's domains, found by the instance's id."""

    def names(self, instance_id: str) -> list[str]:
        """The names of a guest's internal snapshots that libvirt knows."""
        return self._on(instance_id, "list the snapshots", _names)

    def take(self, instance_id: str, name: str) -> None:
        """Take a snapshot, of a guest that runs with its memory; there already is fine.

        Raises:
            Unsupported: It has other disks that can be written, or firmware with a state.
        """

        def take(domain: libvirt.virDomain) -> bool:
            if name in _names(domain):
                return False
            xml, _root_disk = describe(domain, name, "internal")
            domain.snapshotCreateXML(etree.tostring(xml, encoding="unicode"), 0)
            return True

        self._settled_top(instance_id)
        if self._on(instance_id, "take a snapshot", take):
            changes.record(
                f"Took the internal snapshot {name}",
                ["virsh", "snapshot-create-as", instance_id, name],
            )

    def revert(self, instance_id: str, name: str) -> None:
        """Bring a guest that is off back to a snapshot.

        Where that holds the memory, the guest is paused then; else it is off.

        Raises:
            HostFault: There is no such snapshot, or QEMU does not take it.
        """

        def revert(domain: libvirt.virDomain) -> None:
            snapshot = domain.snapshotLookupByName(name)
            ran = etree.fromstring(snapshot.getXMLDesc()).findtext("state") in ("running", "paused")
            flags = libvirt.VIR_DOMAIN_SNAPSHOT_REVERT_PAUSED if ran else 0
            domain.revertToSnapshot(snapshot, flags)

        self._on(instance_id, "revert to the snapshot", revert)
        changes.record(
            f"Reverted to the internal snapshot {name}",
            ["virsh", "snapshot-revert", instance_id, name],
        )

    def delete(self, instance_id: str, name: str) -> None:
        """Delete a snapshot; already gone is fine."""

        def delete(domain: libvirt.virDomain) -> bool:
            if name not in _names(domain):
                return False
            domain.snapshotLookupByName(name).delete()
            return True

        self._settled_top(instance_id)
        if self._on(instance_id, "delete the snapshot", delete):
            changes.record(
                f"Deleted the internal snapshot {name}",
                ["virsh", "snapshot-delete", instance_id, name],
            )


def _names(domain: libvirt.virDomain) -> list[str]:
    return sorted(str(one.getName()) for one in domain.listAllSnapshots())

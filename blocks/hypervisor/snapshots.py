"""Snapshots of a guest's root disk in layers, with or without its memory, running or off.

What is frozen stays as it is, and a new layer takes what is written from then on. libvirt
9.0 can neither revert to such a snapshot nor delete it, so it keeps no list of them here: what
is on top is what its definition of the domain says, and they are reverted and merged by hand.

To read the disk of a guest that runs: `freeze` it, read the file that is told, and `melt` it.
"""

from __future__ import annotations

import time
from pathlib import Path

import libvirt
from lxml import etree

from blocks import changes
from blocks.errors import Conflict, HostFault, Transient, Unsupported
from blocks.hypervisor import disk_layers, live_merge
from blocks.hypervisor.root_disk import RootDisk, describe, device, files

_POLL_S = 0.05
_MERGE_S = 6 * 3600.0
_NO_AGENT = (libvirt.VIR_ERR_AGENT_UNRESPONSIVE, libvirt.VIR_ERR_AGENT_UNSYNCED)


class Snapshots(RootDisk):
    """The frozen layers of this site's domains, found by the instance's id."""

    def freeze(
        self,
        instance_id: str,
        layer: Path,
        *,
        memory: Path | None = None,
        quiesce: bool = False,
    ) -> Path:
        """Freeze the root disk as it is; what is written from now on goes into a new layer.

        Frozen by this layer already is fine. A guest that runs goes on running.

        Args:
            instance_id: Whose.
            layer: The new layer's file, in the instance's directory (`layer_name`).
            memory: The file that takes the memory of a guest that runs.
            quiesce: Have the guest's own agent flush and freeze its file systems meanwhile.

        Returns:
            The frozen file. Nothing writes it until `melt`.

        Raises:
            Conflict: The guest is off, and its memory is wanted, or its agent.
            Unsupported: No guest agent answers.
        """
        top = self._settled_top(instance_id)
        if top == layer:
            return _required(disk_layers.below(layer), layer)
        disk_layers.require_own(instance_id, [top, layer])
        running = self.runs(instance_id)
        if not running and (memory or quiesce):
            raise Conflict("the guest is off: it has no memory to keep, and nothing to quiesce")
        # One that is there and not on top was left by a freezing that was stopped: it is empty.
        disk_layers.remove(layer)
        disk_layers.make(layer, top)
        if not running:
            self.switch(instance_id, layer)
            return top

        def take(domain: libvirt.virDomain) -> str:
            domain.snapshotCreateXML(_xml(domain, layer, memory), _flags(memory, quiesce))
            return device(domain)

        try:
            disk = self._on(instance_id, "take a snapshot", take)
        except HostFault as error:
            cause = error.__cause__
            if isinstance(cause, libvirt.libvirtError) and cause.get_error_code() in _NO_AGENT:
                raise Unsupported(
                    f"no guest agent answers in the guest: {cause.get_error_message()}",
                    hint="install qemu-guest-agent there, or leave out --quiesce",
                ) from error
            raise
        how = ["--memspec", f"file={memory}", "--live"] if memory else ["--disk-only"]
        changes.record(
            f"Froze {top.name}, and put {layer.name} on it",
            [
                *("virsh", "snapshot-create-as", instance_id, "--no-metadata", *how),
                *(["--quiesce"] if quiesce else []),
                *("--reuse-external", "--diskspec", f"{disk},file={layer}"),
            ],
        )
        return top

    def melt(self, instance_id: str, layer: Path) -> None:
        """Merge a layer into the one below it, and remove its file; already so is fine.

        The guest may run meanwhile. A layer that is neither below what the guest writes nor
        below any other is only removed.

        Raises:
            Conflict: Something else is on the layer below, too: it would be changed.
            Transient: The merge goes on, and takes longer than expected.
        """
        self._settled_top(instance_id)
        if not layer.exists():
            disk_layers.remove(layer)
            return
        into = _required(disk_layers.below(layer), layer)
        disk_layers.require_own(instance_id, [layer, into])
        if layer in self._chain(instance_id) or disk_layers.above(layer):
            disk_layers.begin_merge(layer, into)
            self._merge(instance_id, layer, into)
        if not self.runs(instance_id):
            # The definition spells out the whole chain.
            top = self.top(instance_id)
            self.switch(instance_id, into if top == layer else top)
        disk_layers.remove(layer)

    def restore(self, instance_id: str, memory: Path, layer: Path) -> None:
        """Start a guest that is off, paused, with the memory that a file holds.

        Args:
            instance_id: Whose; running already is fine.
            memory: What `freeze` has kept.
            layer: On the file that was frozen then, and empty; the guest is on it already.

        Raises:
            HostFault: QEMU does not take it: another device, another QEMU.
        """

        def run(domain: libvirt.virDomain) -> bool:
            if domain.isActive():
                return False
            conn = domain.connect()
            text = conn.saveImageGetXMLDesc(str(memory), libvirt.VIR_DOMAIN_SAVE_IMAGE_XML_SECURE)
            xml = etree.fromstring(text)
            disk_layers.put_into(disk_layers.root_disk(xml), layer)
            told = etree.tostring(xml, encoding="unicode")
            conn.restoreFlags(str(memory), told, libvirt.VIR_DOMAIN_SAVE_PAUSED)
            return True

        if self._on(instance_id, "restore the memory", run):
            changes.record("Restored the memory", ["virsh", "restore", "--paused", str(memory)])

    def _chain(self, instance_id: str) -> list[Path]:
        """What the guest writes, and all that is below that: as QEMU has it open, or would."""
        if self.runs(instance_id):
            return self._on(instance_id, "read the disk", files)
        return disk_layers.chain_of(self.top(instance_id))

    def _merge(self, instance_id: str, layer: Path, into: Path) -> None:
        chain = self._chain(instance_id)
        if layer in chain and self.runs(instance_id):
            self._merge_live(instance_id, layer, into)
        elif layer in chain or into not in chain:
            disk_layers.merge_unused(layer, into)
        # Those that are on it besides what the guest has open.
        disk_layers.move_up(layer, into)

    def _merge_live(self, instance_id: str, layer: Path, into: Path) -> None:
        disk = self._on(instance_id, "read the disk", device)
        self._on(instance_id, "merge layers", lambda one: live_merge.begin(one, layer, into))
        deadline = time.monotonic() + _MERGE_S
        while not self._on(instance_id, "merge layers", live_merge.is_over):
            if time.monotonic() > deadline:
                raise Transient(f"{layer} is still being merged")
            time.sleep(_POLL_S)
        if layer in self._on(instance_id, "read the disk", files):
            raise Transient(f"{layer} was not merged", hint="see /var/log/libvirt/qemu")
        changes.record(
            f"Merged {layer.name} into {into.name}, live",
            [
                *("virsh", "blockcommit", instance_id, disk, "--base", str(into)),
                *("--top", str(layer), "--pivot", "--wait"),
            ],
        )


def _required(below: Path | None, layer: Path) -> Path:
    if below is None:
        raise HostFault(f"{layer} is on no other layer")
    return below


def _flags(memory: Path | None, quiesce: bool) -> int:
    flags: int = (
        libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
        | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
        | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT
    )
    if quiesce:
        flags |= libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_QUIESCE
    if memory is None:
        flags |= libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
    else:
        flags |= libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_LIVE
    return flags


def _xml(domain: libvirt.virDomain, layer: Path, memory: Path | None) -> str:
    root, disk = describe(domain, layer.stem, "external")
    if memory is not None:
        etree.SubElement(root, "memory", snapshot="external", file=str(memory))
    etree.SubElement(disk, "driver", type="qcow2")
    source = etree.SubElement(disk, "source", file=str(layer))
    etree.SubElement(source, "seclabel", model="dac", relabel="no")
    return etree.tostring(root, encoding="unicode")

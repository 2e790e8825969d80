"""What a host offers to guests: processors, memory, and what its libvirt and QEMU can do."""

from __future__ import annotations

import os
import threading
from typing import Any

from blocks.hypervisor.capabilities import (
    ARCHITECTURE,
    Capabilities,
    cgroup_controllers,
    node,
    read_capabilities,
    unusual_kvm_device,
)
from blocks.hypervisor.connection import Connection
from blocks.hypervisor.disks import Disks
from blocks.hypervisor.identity import qemu_identity


class Offers(Disks):
    """What there is on a host; libvirt is asked once.

    Args:
        connection: The connection.
        site: Whose domains are touched.
        accelerator: `auto`, or `kvm` or `tcg`, which insist.
    """

    def __init__(self, connection: Connection, site: str, accelerator: str) -> None:
        super().__init__(connection, site)
        self._wanted = accelerator
        self._capabilities: Capabilities | None = None
        self._lock = threading.Lock()

    def capabilities(self) -> Capabilities:
        """What libvirt and QEMU offer here; asked once."""
        with self._lock:
            if self._capabilities is None:
                self._capabilities = read_capabilities(self.connection, self._wanted)
            return self._capabilities

    def features(self) -> dict[str, Any]:
        """What the scheduler's image filter may ask for, and what a person may want to know.

        Returns:
            `accelerator`, `architectures`, `machines`, `cpu_models`, `max_vcpus`,
            `firmwares`, `disk_buses`, `tpm`, `libvirt` and `qemu` (versions),
            `cgroup_controllers`, `advice` (what makes this host slow, with the remedy).
        """
        known = self.capabilities()
        slow = unusual_kvm_device(*qemu_identity())
        return {
            "accelerator": known.accelerator,
            "architectures": [ARCHITECTURE],
            "machines": sorted(known.machines),
            "cpu_models": sorted(known.cpu_models),
            "max_vcpus": known.max_vcpus,
            "firmwares": sorted(known.firmwares),
            "disk_buses": sorted(known.disk_buses),
            "tpm": known.tpm,
            "libvirt": known.libvirt,
            "qemu": known.qemu,
            "cgroup_controllers": sorted(cgroup_controllers()),
            "advice": [slow] if slow else [],
        }

    def totals(self) -> tuple[int, int]:
        """The host's processors, and its memory in MiB."""
        return node(self.connection)

    def load(self) -> float:
        """The load average of the last minute (of all processors together)."""
        return os.getloadavg()[0]

    def qemu_identity(self) -> tuple[int, int]:
        """The user and group (uid, gid) that QEMU runs as."""
        return qemu_identity()

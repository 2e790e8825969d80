"""/dev/kvm as udev would make it: group kvm, mode 0660.

Where no udev runs (containers, small virtual machines) the kernel leaves it 0600 root:root.
libvirt then asks QEMU for its capabilities at every call, which takes a minute and a half
instead of 3 ms, also where guests are only emulated. So it is set right before we start
libvirtd ourselves, and put back when we stop it.
"""

from __future__ import annotations

import grp
import os
import stat
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from blocks.changes import record
from blocks.errors import Unsupported
from blocks.hypervisor.capabilities import KVM_DEVICE, unusual_kvm_device
from blocks.hypervisor.identity import qemu_identity

#: As in systemd's 50-udev-default.rules and Debian's 60-qemu-system-common.rules.
_GROUP = "kvm"
_MODE = 0o660


class Access(BaseModel):
    """Who may open the device: owner, group, and mode (permission bits)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uid: int
    gid: int
    mode: int

    def __str__(self) -> str:
        """As `stat -c '%u:%g 0%a'` prints it."""
        return f"{self.uid}:{self.gid} {self.mode:04o}"


def advice() -> str | None:
    """What a person should do about the device, where libvirtd is not ours; one line."""
    try:
        return unusual_kvm_device(*qemu_identity())
    except Unsupported:
        return None  # no QEMU here, so nothing that it would slow down


def open_to_qemu(memory: Path) -> None:
    """Let QEMU's user open the device, where that is not so already.

    Args:
        memory: A file in which is kept what it was; written before anything is changed.
    """
    if advice() is None:
        return
    try:
        group = grp.getgrnam(_GROUP).gr_gid
    except KeyError:
        return  # libvirt's packages make the group: where it is not, there is no libvirt
    before = _access()
    memory.write_text(before.model_dump_json())
    _set(Access(uid=before.uid, gid=group, mode=_MODE))
    record(
        f"Gave {KVM_DEVICE} the group {_GROUP} and mode {_MODE:04o}, as udev does "
        f"(it was {before}, and is again when libvirtd is stopped)",
        f"chgrp {_GROUP} {KVM_DEVICE}; chmod {_MODE:04o} {KVM_DEVICE}",
    )


def put_back(memory: Path) -> None:
    """Make the device what it was, unless somebody else has changed it since.

    Args:
        memory: The file that `open_to_qemu` wrote; gone afterwards.
    """
    try:
        before = Access.model_validate_json(memory.read_text())
        now = _access()
    except (FileNotFoundError, ValidationError):
        memory.unlink(missing_ok=True)  # nothing was changed, or the write of it was cut short
        return
    if now == Access(uid=before.uid, gid=grp.getgrnam(_GROUP).gr_gid, mode=_MODE):
        _set(before)
        record(
            f"Made {KVM_DEVICE} {before} again",
            f"chown {before.uid}:{before.gid} {KVM_DEVICE}; chmod {before.mode:04o} {KVM_DEVICE}",
        )
    memory.unlink()


def _access() -> Access:
    found = KVM_DEVICE.stat()
    return Access(uid=found.st_uid, gid=found.st_gid, mode=stat.S_IMODE(found.st_mode))


def _set(access: Access) -> None:
    # The narrower of the two first: nobody else may open it in between.
    KVM_DEVICE.chmod(0o600)
    os.chown(KVM_DEVICE, access.uid, access.gid)
    KVM_DEVICE.chmod(access.mode)

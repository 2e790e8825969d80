"""The guests' QEMU processes, found by themselves: libvirt may have lost one, or never had it.

libvirt passes `-uuid ID`, and the paths of the instance's files; by these it is known whose
a process is, whatever libvirt knows.
"""

from __future__ import annotations

from pathlib import Path

from blocks import ages, changes
from blocks.fabric import processes
from blocks.inventory import Found

KIND = "process"
NAME = "qemu"


def inventory(root: Path) -> list[Found]:
    """The QEMU processes of the guests whose files are below this directory, by their ids."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        pid = int(path.name)
        instance_id = _guest_of(processes.command_line(pid), root)
        if instance_id:
            found.append(
                Found(
                    kind=KIND,
                    name=NAME,
                    owner=instance_id,
                    age_s=ages.of_process(pid),
                    detail=f"pid {pid}",
                )
            )
    return sorted(found, key=lambda one: (one.owner, one.detail))


def remove(found: Found, root: Path) -> None:
    """Stop a guest's QEMU at once; already gone is fine."""
    pid = int(found.detail.removeprefix("pid "))
    words = processes.command_line(pid)
    if _guest_of(words, root) == found.owner and processes.stop(pid, found.owner):
        changes.record(f"Stopped QEMU, {found.detail}", ["kill", str(pid)])


def _guest_of(words: list[str], root: Path) -> str | None:
    """The instance whose guest a command line starts; None for any other process."""
    if "-uuid" not in words[:-1]:
        return None
    instance_id = words[words.index("-uuid") + 1]
    own = f"{root}/{instance_id}/"
    return instance_id if any(own in word for word in words) else None

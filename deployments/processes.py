"""Processes that outlive the command that started them, and how they are stopped again.

A pid alone says nothing once its process has ended and the number is given out anew. So
what is recorded is pid, start time and boot: together they name one process for ever.
"""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

from pydantic import BaseModel, ConfigDict

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Process(BaseModel):
    """One process of this host, and no other one.

    Attributes:
        pid: Its number.
        start: When it started, in clock ticks since boot (field 22 of proc(5)'s stat).
        boot: The boot id of the kernel that ran it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pid: int
    start: int
    boot: str


def identify(pid: int) -> Process | None:
    """The running process with this pid, or None if there is none (or only a zombie)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name, in parentheses, may hold anything; what follows its last one is numbers.
    state, *fields = stat.rpartition(")")[2].split()
    # The first thread is a zombie until the others have ended, too, and holds its locks as long.
    if state == "X" or (state == "Z" and int(fields[16]) == 1):
        return None
    return Process(pid=pid, start=int(fields[18]), boot=boot_id())


def boot_id() -> str:
    """The boot id of the kernel that runs now."""
    return _BOOT_ID.read_text().strip()


def is_alive(process: Process) -> bool:
    """Whether exactly this process is still running."""
    return identify(process.pid) == process


def command_line(pid: int) -> list[str]:
    """The arguments that a process was started with; none if it is gone."""
    try:
        content = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [os.fsdecode(word) for word in content.split(b"\0")[:-1]]


def wait_for_end(process: Process, timeout_s: float) -> bool:
    """Wait until a process has ended.

    Returns:
        Whether it has ended; False after `timeout_s` seconds of waiting.
    """
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    try:
        if not is_alive(process):
            _reap(process.pid)
            return True
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        ended = bool(poll.poll(timeout_s * 1000))
    finally:
        os.close(handle)
    if ended:
        _reap(process.pid)
    return ended


def stop(process: Process, *, grace_s: float = 20.0) -> bool:
    """End a process: SIGTERM, and SIGKILL if it has not ended after `grace_s` seconds.

    Returns:
        Whether there was anything to stop.
    """
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        # The handle is open now: what is checked here is what gets the signal.
        if not is_alive(process):
            return False
        signal.pidfd_send_signal(handle, signal.SIGTERM)
        if not wait_for_end(process, grace_s):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            wait_for_end(process, grace_s)
    except ProcessLookupError:
        pass  # it ended by itself between the check and the signal
    finally:
        os.close(handle)
    return True


def _reap(pid: int) -> None:
    """Take the exit status if it was our own child, so that no zombie stays."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return

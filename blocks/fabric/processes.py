"""The servers of a network: found, signalled and stopped by the pid that they wrote.

A pid alone may by now be another process's. Each server's command line names a file that
only it has (its configuration), and a pidfd (pidfd_open(2)) is held between the look at
the command line and the signal, so that the signal cannot go astray.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from blocks.errors import HostFault
from blocks.fabric import namespaces

_STOP_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Server:
    """A server process.

    Attributes:
        pid_file: Where it writes its pid.
        token: An argument that no other process's command line has.
        namespace: The network namespace that it is to be in; None asks for none.
    """

    pid_file: Path
    token: str
    namespace: str | None = None

    def pid(self) -> int | None:
        """Its pid, if it is alive, and where it ought to be.

        A namespace whose name was taken away lives on with its processes, which serve
        nobody from then on: such a process counts as one that is not there.
        """
        pid = self._written()
        if pid is None or self.token not in command_line(pid):
            return None
        return pid if self.namespace is None or namespaces.has(self.namespace, pid) else None

    def signal(self, number: signal.Signals) -> bool:
        """Send it a signal; tell whether it was there to receive it."""
        pid = self._written()
        if pid is None:
            return False
        with _held(pid, self.token) as handle:
            if handle is None:
                return False
            signal.pidfd_send_signal(handle, number)
            return True

    def ensure(self, start: Callable[[], object]) -> bool:
        """Have it run, by starting it where it does not.

        A process that was killed while it started the server may leave one behind that
        is still on its way, without a pid file: that one is stopped first, also if it
        only shows itself by being in the way. So is one that is in another namespace.

        Returns:
            Whether it had to be started.

        Raises:
            HostFault: It does not start.
        """
        if self.pid() is not None:
            return False
        while True:
            self.stop()
            try:
                start()
            except HostFault:
                if not having(self.token):
                    raise
            else:
                return True

    def stop(self) -> bool:
        """Stop it, and any other that was started for the same; wait until they are gone.

        Returns:
            Whether one was running.

        Raises:
            HostFault: It does not even die of SIGKILL.
        """
        stopped = False
        while pids := having(self.token):
            for pid in pids:
                stopped = stop(pid, self.token) or stopped
        self.pid_file.unlink(missing_ok=True)
        return stopped

    def _written(self) -> int | None:
        try:
            return int(self.pid_file.read_text())
        except (FileNotFoundError, ValueError):
            return None


def stop(pid: int, token: str) -> bool:
    """Stop a process that has this argument, and wait until it is gone.

    Returns:
        Whether there was such a process.

    Raises:
        HostFault: It does not even die of SIGKILL.
    """
    with _held(pid, token) as handle:
        if handle is None:
            return False
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                signal.pidfd_send_signal(handle, number)
            except ProcessLookupError:
                return True
            # A pidfd becomes readable when its process ends.
            if select.select([handle], [], [], _STOP_TIMEOUT_S)[0]:
                return True
    raise HostFault(f"the process {pid} does not end", hint=f"look at /proc/{pid}")


def having(token: str) -> list[int]:
    """The pids of processes that have this argument: not all, but some if there are any.

    One that goes into the background is another from one moment to the next: where none was
    seen, those that have come meanwhile are looked at, too.
    """
    seen: set[int] = set()
    while pids := {int(path.name) for path in Path("/proc").glob("[0-9]*")} - seen:
        if found := [pid for pid in sorted(pids) if token in command_line(pid)]:
            return found
        seen |= pids
    return []


def command_line(pid: int) -> list[str]:
    """The arguments of a process; empty for one that is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


@contextmanager
def _held(pid: int, token: str) -> Iterator[int | None]:
    """A pidfd of the process, if it has this argument."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield handle if token in command_line(pid) else None
    finally:
        os.close(handle)

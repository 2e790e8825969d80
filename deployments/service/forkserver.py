"""The process that flow runs are forked from; it has imported everything they need.

`python -m deployments.service.forkserver FD` is started by the worker, which sends orders
over the socket FD: run a flow run, end one. It tells when a child began and how it ended.
A child is a fork of this process, and so must find a state that can be forked: one thread,
no socket but ours, no database connection, no event loop. That is looked at each time.

When the worker is gone, the children get SIGTERM: no flow run goes on that nobody could
cancel. Their builds stay resumable, and their runs are set Crashed by Prefect's engine.
When this process itself is killed, the kernel sends them the same (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import pkgutil
import select
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from deployments.service.orders import Lines, encode

_PR_SET_PDEATHSIG = 1
_CHILD = "deployments.service.child"
_CHUNK = 1 << 16
_PACKAGES = ("blocks", "tasks", "flows")
#: What Prefect imports while a flow runs, and not before: in here, it is imported once.
_LATE = (
    "prefect._internal.metrics",
    "prefect.artifacts",
    "prefect.concurrency.sync",
    "prefect.engine",
    "prefect.events.worker",
    "prefect.flow_engine",
    "prefect.task_engine",
)


def import_everything() -> None:
    """Import Prefect and all of our own that a flow may come to need."""
    for name in (*_LATE, _CHILD):
        importlib.import_module(name)
    for package in _PACKAGES:
        path = importlib.import_module(package).__path__
        for module in pkgutil.walk_packages(path, f"{package}."):
            if ".migrations" not in module.name and not module.name.endswith("__main__"):
                importlib.import_module(module.name)


class Forkserver:
    """Forks children as ordered, and tells of them.

    Args:
        connection: To the worker.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lines = Lines()
        self._children: dict[int, str] = {}
        self._over = False
        self._wake, self._waking = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._prctl = ctypes.CDLL(None, use_errno=True).prctl
        self._pid = os.getpid()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._end)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._waking, warn_on_full_buffer=False)

    def serve(self) -> dict[str, Any] | None:
        """Do what is ordered until the worker has gone and the last child has ended.

        Returns:
            In a child: the order it is to carry out. In the forkserver itself: None, once
            all is over.
        """
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        self._tell({"event": "ready"})
        while self._children or not self._over:
            for descriptor, _events in poll.poll():
                if descriptor == self._wake:
                    os.read(self._wake, _CHUNK)
                    continue
                data = self._connection.recv(_CHUNK)
                if not data:
                    poll.unregister(self._connection)
                    self._end()
                for order in self._lines.feed(data):
                    if self._obey(order):
                        return order
            self._reap()
        return None

    def unfit(self) -> list[str]:
        """What stands against forking this process; nothing, as it should be."""
        why = []
        threads = len(os.listdir("/proc/self/task"))  # noqa: PTH208
        if threads != 1 or threading.active_count() != 1:
            why.append(f"it has {threads} threads")
        known = {0, 1, 2, self._wake, self._waking, self._connection.fileno()}
        for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
            link = Path("/proc/self/fd", name)
            if int(name) not in known and link.is_symlink():
                why.append(f"it has {link.readlink()} open")
        return why

    def _obey(self, order: Mapping[str, Any]) -> bool:
        """Do what an order says; True in the child that carries it out."""
        run = order["run"]
        if order["do"] == "end":
            for pid in [pid for pid, of in self._children.items() if of == run]:
                os.kill(pid, signal.SIGTERM)
            return False
        why = self.unfit()
        if self._over or why:
            self._tell({"event": "refused", "run": run, "why": "; ".join(why) or "it is ending"})
            return False
        # A signal for the child must not find the forkserver's handlers in it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        pid = os.fork()
        if pid == 0:
            self._become_child()
            return True
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        self._children[pid] = run
        self._tell({"event": "started", "run": run, "pid": pid})
        return False

    def _become_child(self) -> None:
        """Give up what is the forkserver's; SIGTERM stays blocked until the child is ready."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._connection.close()
        os.close(self._wake)
        os.close(self._waking)
        self._prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != self._pid:
            os.kill(os.getpid(), signal.SIGTERM)

    def _reap(self) -> None:
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            run = self._children.pop(pid, None)
            if run is not None:
                code = os.waitstatus_to_exitcode(status)
                self._tell({"event": "ended", "run": run, "code": code})

    def _end(self, _number: int | None = None, _frame: FrameType | None = None) -> None:
        """Take no more orders; end the children."""
        if not self._over:
            self._over = True
            for pid in self._children:
                os.kill(pid, signal.SIGTERM)

    def _tell(self, message: Mapping[str, Any]) -> None:
        try:
            self._connection.sendall(encode(message))
        except (BrokenPipeError, ConnectionResetError):
            self._end()


def main() -> int:
    """Import, wait for orders, and in each child carry out one; the exit code."""
    server = Forkserver(socket.socket(fileno=int(sys.argv[1])))
    import_everything()
    # What is here stays for good: a child's collector must not touch (and so copy) it.
    gc.collect()
    gc.freeze()
    order = server.serve()
    if order is None:
        return 0
    # Imported above, but not at the top: this module has to be quick to say that it runs.
    return int(sys.modules[_CHILD].carry_out(order))


if __name__ == "__main__":
    sys.exit(main())

"""The worker's side of the forkserver: start it, have children made, learn how they end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blocks.errors import HostFault
from deployments.service.orders import Lines, encode

_PROJECT = Path(__file__).resolve().parents[2]
_CHUNK = 1 << 16
#: The exit code of a child whose forkserver was gone before it could tell.
LOST = -1


@dataclass
class Child:
    """A flow run's process.

    Attributes:
        started: Its pid.
        ended: Its exit code; a signal's number, negative, where one killed it.
        told: Whether it was sent SIGTERM; that is done once.
    """

    started: asyncio.Future[int] = field(default_factory=asyncio.Future)
    ended: asyncio.Future[int] = field(default_factory=asyncio.Future)
    told: bool = False


class Children:
    """The flow runs' processes. Used in an event loop.

    The forkserver has a session of its own: Ctrl-C on the worker's terminal is not for it.
    """

    def __init__(self) -> None:
        self._running: dict[str, Child] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._listener: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._ready: asyncio.Future[None] | None = None

    @property
    def pid(self) -> int | None:
        """The forkserver's."""
        return self._process.pid if self._process else None

    def __contains__(self, run: str) -> bool:
        return run in self._running

    def __len__(self) -> int:
        return len(self._running)

    async def start(self) -> None:
        """Start the forkserver, where there is none, and wait until it has imported all.

        Raises:
            HostFault: It ended instead.
        """
        if self._ready is None:
            self._ready = asyncio.get_running_loop().create_future()
            ours, its = socket.socketpair()
            with its:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "deployments.service.forkserver", str(its.fileno())],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[its.fileno()],
                    start_new_session=True,
                    cwd=_PROJECT,
                )
            reader, self._writer = await asyncio.open_connection(sock=ours)
            self._listener = asyncio.create_task(self._listen(reader))
        await asyncio.shield(self._ready)

    async def run(self, run: str, entrypoint: str, env: Mapping[str, str]) -> Child:
        """Have a child carry out a flow run.

        Args:
            run: The flow run's id.
            entrypoint: The flow, as its deployment says.
            env: Environment variables for it.

        Raises:
            HostFault: The forkserver refused, or is gone; or the run has a child already.
        """
        await self.start()
        if run in self._running:
            raise HostFault(f"flow run {run} has a process already")
        child = self._running[run] = Child()
        self._send({"do": "run", "run": run, "entrypoint": entrypoint, "env": dict(env)})
        await child.started
        return child

    def end(self, run: str) -> bool:
        """Send SIGTERM to a flow run's process, once.

        Returns:
            Whether it was sent now.
        """
        child = self._running.get(run)
        if child is None or child.told:
            return False
        child.told = True
        self._send({"do": "end", "run": run})
        return True

    def end_all(self) -> int:
        """Send SIGTERM to all that did not get it yet; to how many."""
        return sum([self.end(run) for run in list(self._running)])

    async def stop(self) -> None:
        """End the forkserver; the children have ended by now, or are told to and waited for."""
        self._close()
        if self._listener is not None:
            await self._listener

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _send(self, order: Mapping[str, Any]) -> None:
        if self._writer is not None:
            self._writer.write(encode(order))

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        lines = Lines()
        try:
            with contextlib.suppress(ConnectionResetError):
                while data := await reader.read(_CHUNK):
                    for message in lines.feed(data):
                        self._take(message)
        finally:
            # Also where a message was not to be understood: nobody waits for what cannot come.
            self._close()
            if self._process is not None:
                await asyncio.to_thread(self._process.wait)
            self._forget()

    def _take(self, message: Mapping[str, Any]) -> None:
        if message["event"] == "ready":
            if self._ready is not None:
                self._ready.set_result(None)
            return
        run = str(message["run"])
        child = self._running[run]
        match message["event"]:
            case "started":
                child.started.set_result(message["pid"])
            case "ended":
                del self._running[run]
                child.ended.set_result(message["code"])
            case "refused":
                del self._running[run]
                child.started.set_exception(HostFault(f"no child was forked: {message['why']}"))

    def _forget(self) -> None:
        """The forkserver is gone, and so, by the kernel's doing, are its children."""
        gone = HostFault("the process that flow runs are forked from has ended")
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(gone)
        for child in self._running.values():
            if not child.started.done():
                child.started.set_exception(gone)
            child.ended.set_result(LOST)
        self._running.clear()
        self._ready = self._process = self._writer = None

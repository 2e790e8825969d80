"""TCP connections that stay open while something is changed, and floating IPs for the lab."""

from __future__ import annotations

import contextlib
import select
import socket
import time
import uuid
from collections.abc import Iterator

from blocks.fabric import run_in
from blocks.resources import FloatingIp, Router
from tests.host.fabric_lab import Guest, Lab, Net

#: Long enough for several retransmissions.
SILENCE_S = 2.5
PATIENCE_S = 20.0


class Talk:
    """An open TCP connection."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server

    def goes_on(self, patience_s: float = PATIENCE_S) -> bool:
        """Whether a word comes through to the server, and another one back."""
        return self._says(self.client, self.server, patience_s) and self._says(
            self.server, self.client, patience_s
        )

    def has_ended(self) -> bool:
        """Whether nothing comes through any more; the server, which may answer, begins."""
        for speaker in (self.server, self.client):
            with contextlib.suppress(OSError):
                speaker.sendall(b"word")
        hearers, end = {self.client, self.server}, time.monotonic() + SILENCE_S
        while hearers and (left := end - time.monotonic()) > 0:
            for hearer in select.select(list(hearers), [], [], left)[0]:
                with contextlib.suppress(OSError):
                    if hearer.recv(4):
                        return False
                # It was told that the other end is gone.
                hearers.remove(hearer)
        return True

    @property
    def seen_as(self) -> str:
        """The client's address as the server sees it."""
        return str(self.server.getpeername()[0])

    def _says(self, speaker: socket.socket, hearer: socket.socket, patience_s: float) -> bool:
        hearer.settimeout(patience_s)
        try:
            speaker.sendall(b"word")
            return hearer.recv(4) == b"word"
        except OSError:
            return False


@contextlib.contextmanager
def talk(
    client: str, server: str, port: int = 80, *, address: object, at: object | None = None
) -> Iterator[Talk]:
    """A TCP connection between two namespaces.

    Args:
        client: The namespace of who begins it.
        server: The namespace of who answers.
        port: The server's port.
        address: What the client connects to.
        at: The server's own address; where it is not the one that the client asks for.
    """
    own = str(at if at is not None else address)
    listener = run_in(server, lambda: socket.create_server((own, port)))
    with listener:
        listener.settimeout(PATIENCE_S)
        begun = run_in(client, lambda: socket.create_connection((str(address), port), PATIENCE_S))
        with begun:
            peer, _ = listener.accept()
            with peer:
                yield Talk(begun, peer)


def floating(outside: Net, last: int, to: Guest | None) -> FloatingIp:
    """A floating IP, `.last` of the outside, that leads to a guest or nowhere."""
    return FloatingIp(
        id=str(uuid.uuid4()),
        tenant_id="t",
        network_id=outside.network.id,
        address=outside.subnet.cidr[last],
        port_id=to.binding.port.id if to else None,
        fixed_address=to.address if to else None,
    )


def given(lab: Lab, router: Router, *floating_ips: FloatingIp) -> Router:
    """The router with exactly these floating IPs, on the host, too."""
    made = router.model_copy(update={"floating_ips": floating_ips})
    lab.fabric.connect_outside(made)
    assert lab.fabric.router_differences(made) == []
    return made

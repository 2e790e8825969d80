"""The metadata server of one network: a process of its own, of the standard library only.

Run as `python -I -S metadata_server.py DOCUMENTS PID_FILE` in a network's DHCP
namespace. It answers on 169.254.169.254, port 80, to each guest with the documents of
that guest: who asks is told by the source address, which the firewall makes trustworthy.
A path of the request is only ever looked up in the tables below, never in the file
system. Once it listens it becomes `nobody` with DOCUMENTS as its root directory.

The forms are those of Nova's metadata service: OpenStack's own and, beside it, EC2's.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import sys
import time
from typing import Any, NamedTuple

ADDRESS = ("169.254.169.254", 80)
NOBODY = 65534
#: Limits: a guest must not keep the others from being answered.
REQUEST_BYTES = 8192
CONNECTIONS, CONNECTIONS_EACH = 256, 16
PATIENCE_S = 10.0

DOCUMENTS = ("meta_data.json", "network_data.json", "user_data", "vendor_data.json")


class Answer(NamedTuple):
    """What is answered to a request."""

    status: str
    content: bytes = b""
    kind: str = "text/plain"

    def http(self, *, head_only: bool = False) -> bytes:
        """The answer on the wire (RFC 9112)."""
        head = (
            f"HTTP/1.1 {self.status}\r\nContent-Type: {self.kind}\r\n"
            f"Content-Length: {len(self.content)}\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + (b"" if head_only else self.content)


NOT_FOUND = Answer("404 Not Found", b"not found\n")


def read(root: str, guest: str, name: str) -> bytes | None:
    """A document of one guest, or None where it has none of that name."""
    try:
        with open(f"{root}/{guest}/{name}", "rb") as file:  # noqa: PTH123 - pathlib takes 10 ms
            return file.read()
    except OSError:
        return None


def answer(root: str, guest: str, path: str) -> Answer:
    """The answer to one guest's question.

    Args:
        root: The directory of the documents, one directory a guest's address in it.
        guest: The address of who asks, as the kernel tells it.
        path: What is asked for, as it came.
    """
    words = [word for word in path.split("?", 1)[0].split("/") if word]
    if not words:
        return Answer("200 OK", b"latest\nopenstack\n")
    if words == ["openstack"]:
        return Answer("200 OK", b"latest\n")
    meta = read(root, guest, "meta_data.json")
    if meta is None:
        return NOT_FOUND
    if words[:2] == ["openstack", "latest"]:
        return _openstack(root, guest, words[2:])
    if words[0] in ("latest", "2009-04-04"):
        return _ec2(root, guest, words[1:], json.loads(meta))
    return NOT_FOUND


def _openstack(root: str, guest: str, words: list[str]) -> Answer:
    there = {name: read(root, guest, name) for name in DOCUMENTS}
    if not words:
        return _listing([name for name, content in there.items() if content is not None])
    content = there.get(words[0]) if len(words) == 1 else None
    if content is None:
        return NOT_FOUND
    return Answer(
        "200 OK", content, "application/json" if words[0].endswith("json") else "text/plain"
    )


def _ec2(root: str, guest: str, words: list[str], meta: dict[str, Any]) -> Answer:
    if not words:
        return _listing(["meta-data/", "user-data"])
    if words == ["user-data"]:
        content = read(root, guest, "user_data")
        return NOT_FOUND if content is None else Answer("200 OK", content)
    if words[0] != "meta-data":
        return NOT_FOUND
    keys = list(dict(meta.get("public_keys") or {}).items())
    leaves = {
        "hostname": meta.get("hostname") or meta.get("name"),
        "instance-id": meta.get("uuid"),
        "local-hostname": meta.get("hostname") or meta.get("name"),
        "local-ipv4": guest,
    }
    if len(words) == 1:
        return _listing([*sorted(leaves), *(["public-keys/"] if keys else [])])
    if len(words) == 2 and leaves.get(words[1]):
        return Answer("200 OK", str(leaves[words[1]]).encode())
    return _public_keys(words[2:], keys) if words[1] == "public-keys" and keys else NOT_FOUND


def _public_keys(words: list[str], keys: list[tuple[str, str]]) -> Answer:
    if not words:
        return _listing([f"{number}={name}" for number, (name, _) in enumerate(keys)])
    chosen = {str(number): key for number, (_, key) in enumerate(keys)}.get(words[0])
    if chosen is None or words[1:] not in ([], ["openssh-key"]):
        return NOT_FOUND
    return Answer("200 OK", chosen.encode()) if words[1:] else _listing(["openssh-key"])


def _listing(names: list[str]) -> Answer:
    return Answer("200 OK", "\n".join(names).encode())


class Connection:
    """One guest's question, as far as it has come, and what is left of the answer."""

    def __init__(self, peer: socket.socket, guest: str) -> None:
        self.peer = peer
        self.guest = guest
        self.asked = b""
        self.left = b""
        self.deadline = time.monotonic() + PATIENCE_S

    def receive(self, root: str) -> bool:
        """Take what has come; tell whether the connection is of further use."""
        try:
            data = self.peer.recv(REQUEST_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.asked += data
        if b"\r\n\r\n" in self.asked:
            self.left = self._reply(root)
        elif len(self.asked) >= REQUEST_BYTES:
            self.left = Answer("431 Request Header Fields Too Large").http()
        return bool(data)

    def send(self) -> bool:
        """Send on; tell whether something is left to send."""
        try:
            sent = self.peer.send(self.left)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.left = self.left[sent:]
        return bool(self.left)

    def _reply(self, root: str) -> bytes:
        words = self.asked.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) != 3:
            return Answer("400 Bad Request").http()
        if words[0] not in ("GET", "HEAD"):
            return Answer("405 Method Not Allowed").http()
        return answer(root, self.guest, words[1]).http(head_only=words[0] == "HEAD")


class Server:
    """All connections, in one thread."""

    def __init__(self, listener: socket.socket, root: str) -> None:
        self.root = root
        self.listener = listener
        self.selector = selectors.DefaultSelector()
        self.open: set[Connection] = set()
        listener.setblocking(False)
        self.selector.register(listener, selectors.EVENT_READ)

    def run(self) -> None:
        """Answer, for ever."""
        while True:
            for key, _ in self.selector.select(1.0 if self.open else None):
                if key.data is None:
                    self._accept()
                else:
                    self._go_on(key.data)
            now = time.monotonic()
            for connection in [each for each in self.open if each.deadline < now]:
                self._close(connection)

    def _accept(self) -> None:
        try:
            peer, (guest, _) = self.listener.accept()
        except OSError:  # the guest has gone again
            return
        same = sum(1 for connection in self.open if connection.guest == guest)
        if len(self.open) >= CONNECTIONS or same >= CONNECTIONS_EACH:
            peer.close()
            return
        peer.setblocking(False)
        connection = Connection(peer, guest)
        self.open.add(connection)
        self.selector.register(peer, selectors.EVENT_READ, connection)

    def _go_on(self, connection: Connection) -> None:
        if connection.left:
            if not connection.send():
                self._close(connection)
        elif not connection.receive(self.root):
            self._close(connection)
        elif connection.left:
            self.selector.modify(connection.peer, selectors.EVENT_WRITE, connection)

    def _close(self, connection: Connection) -> None:
        self.selector.unregister(connection.peer)
        connection.peer.close()
        self.open.discard(connection)


def main(documents: str, pid_file: str) -> None:
    """Listen, go to the background, give everything up, answer."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(ADDRESS)
    listener.listen(128)
    ready, told = os.pipe()
    if os.fork():
        os.close(told)
        os._exit(0 if os.read(ready, 1) else 1)
    os.setsid()
    nowhere = os.open("/dev/null", os.O_RDWR)
    with open(f"{pid_file}.new", "w") as file:  # noqa: PTH123
        file.write(f"{os.getpid()}\n")
    os.replace(f"{pid_file}.new", pid_file)  # noqa: PTH105
    os.chroot(documents)
    os.chdir("/")
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    os.write(told, b"1")
    for handle in (0, 1, 2):
        os.dup2(nowhere, handle)
    for handle in (ready, told, nowhere):
        os.close(handle)
    Server(listener, "").run()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])

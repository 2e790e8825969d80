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
#: Since which of OpenStack's versions each is there; the last is that of today.
SINCE = {
    "meta_data.json": "2012-08-10",
    "user_data": "2012-08-10",
    "password": "2013-04-04",
    "vendor_data.json": "2013-10-17",
    "network_data.json": "2015-10-15",
}
VERSIONS = (*sorted(set(SINCE.values())), "latest")
EC2_VERSIONS = ("2009-04-04", "latest")


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
        return _listing([*EC2_VERSIONS, "openstack"])
    if words == ["openstack"]:
        return _listing(list(VERSIONS))
    meta = read(root, guest, "meta_data.json")
    if meta is None:
        return NOT_FOUND
    if words[0] == "openstack" and words[1] in VERSIONS:
        return _openstack(root, guest, words[1], words[2:])
    if words[0] in EC2_VERSIONS:
        return _ec2(root, guest, words[1:], json.loads(meta))
    return NOT_FOUND


def _openstack(root: str, guest: str, version: str, words: list[str]) -> Answer:
    there = {name: read(root, guest, name) for name in DOCUMENTS}
    # No guest has told one (Nova keeps what a Windows guest posts, encrypted).
    there["password"] = b""
    known = {
        name: content
        for name, content in there.items()
        if content is not None and (version == "latest" or SINCE[name] <= version)
    }
    if not words:
        return _listing(sorted(known))
    if len(words) > 1 or words[0] not in known:
        return NOT_FOUND
    kind = "application/json" if words[0].endswith("json") else "text/plain"
    return Answer("200 OK", known[words[0]], kind)


def _ec2(root: str, guest: str, words: list[str], meta: dict[str, Any]) -> Answer:
    user_data = read(root, guest, "user_data")
    if not words:
        return _listing(["meta-data/", *(["user-data"] if user_data is not None else [])])
    if words == ["user-data"]:
        return NOT_FOUND if user_data is None else Answer("200 OK", user_data)
    if words[0] != "meta-data":
        return NOT_FOUND
    return _walked(_ec2_tree(guest, meta), words[1:])


def _ec2_tree(guest: str, meta: dict[str, Any]) -> dict[str, Any]:
    """EC2's metadata, as directories in directories; what there is not is left out."""
    keys = dict(meta.get("public_keys") or {}).items()
    name = meta.get("hostname") or meta.get("name")
    zone = meta.get("availability_zone")
    tree: dict[str, Any] = {
        "ami-launch-index": meta.get("launch_index"),
        "hostname": name,
        "instance-id": meta.get("uuid"),
        "local-hostname": name,
        "local-ipv4": guest,
        "placement": {"availability-zone": zone} if zone else {},
        "public-keys": {
            f"{number}={name}": {"openssh-key": key} for number, (name, key) in enumerate(keys)
        },
    }
    return {key: value for key, value in tree.items() if value not in (None, "", {})}


def _walked(tree: dict[str, Any], words: list[str]) -> Answer:
    """What a path leads to: a leaf, or the names in a directory (`0=name` is `0`, too)."""
    here: Any = tree
    for word in words:
        if not isinstance(here, dict):
            return NOT_FOUND
        numbered = {key.split("=", 1)[0]: to for key, to in here.items() if "=" in key}
        here = {**numbered, **here}.get(word)
    if here is None:
        return NOT_FOUND
    if not isinstance(here, dict):
        return Answer("200 OK", str(here).encode())
    return _listing([_entry(key, to) for key, to in here.items()])


def _entry(key: str, to: object) -> str:
    """A name in a listing; directories end in a stroke, but those of the keys do not."""
    return f"{key}/" if isinstance(to, dict) and "=" not in key else key


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

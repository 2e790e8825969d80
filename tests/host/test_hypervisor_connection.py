"""The connection to libvirt through a socket that breaks: opened again, once."""

from __future__ import annotations

import socket
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.errors import Transient
from blocks.hypervisor import LibvirtHost

pytestmark = pytest.mark.host

LIBVIRT = "/run/libvirt/libvirt-sock"


class Proxy:
    """Stands between a client and libvirt's socket, and can hang up."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.accepted = 0
        self._pairs: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _address = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(LIBVIRT)
            self._pairs += [client, server]
            self.accepted += 1
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=_pump, args=(source, target), daemon=True).start()

    def hang_up(self) -> None:
        for end in self._pairs:
            # close() alone would leave the pumps' recv() waiting.
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
            finally:
                end.close()
        self._pairs.clear()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.path.unlink()
        self.hang_up()


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while chunk := source.recv(65536):
            target.sendall(chunk)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return


@pytest.fixture(name="proxy")
def _proxy(tmp_path: Path, libvirtd: str) -> Iterator[Proxy]:
    assert libvirtd == "qemu:///system"
    proxy = Proxy(tmp_path / "sock")
    yield proxy
    if proxy.path.exists():
        proxy.close()


def test_a_lost_connection_is_opened_again(proxy: Proxy, site: str) -> None:
    host = LibvirtHost(f"qemu+unix:///system?socket={proxy.path}", "tcg", site)
    nobody = str(uuid.uuid4())
    assert host.state(nobody) is None
    assert host.state(nobody) is None
    assert proxy.accepted == 1
    proxy.hang_up()
    assert host.state(nobody) is None
    assert proxy.accepted == 2
    host.connection.close()
    assert host.totals()[0] >= 1
    assert proxy.accepted == 3


def test_when_it_stays_away_it_is_worth_a_retry(proxy: Proxy, site: str) -> None:
    host = LibvirtHost(f"qemu+unix:///system?socket={proxy.path}", "tcg", site)
    host.totals()
    proxy.close()
    with pytest.raises(Transient) as caught:
        host.totals()
    assert "libvirtd" in caught.value.hint


def test_many_threads_after_a_loss(proxy: Proxy, site: str) -> None:
    host = LibvirtHost(f"qemu+unix:///system?socket={proxy.path}", "tcg", site)
    host.totals()
    proxy.hang_up()
    answers: list[tuple[int, int]] = []
    threads = [threading.Thread(target=lambda: answers.append(host.totals())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8 and len(set(answers)) == 1

"""Files that others read meanwhile, locks between processes, and the metadata's answers."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
from pathlib import Path

import pytest

from blocks.errors import HostFault, InvalidRequest
from blocks.fabric import files, metadata_server
from blocks.fabric.dhcp_release import packet
from blocks.fabric.metadata_server import answer
from blocks.fabric.processes import Server, command_line
from blocks.fabric.site import Site
from tests.waiting import eventually


def test_a_file_is_changed_in_one_move(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert files.write(path, b"one")
    with path.open("rb") as held:
        assert files.write(path, b"two", 0o600)
        assert held.read() == b"one"
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert not files.write(path, b"two")
    assert list(tmp_path.iterdir()) == [path]


def count(directory: Path, counter: Path, times: int) -> None:
    site = Site(directory, "beef", "h")
    for _ in range(times):
        with site.locked("counter"):
            counter.write_text(str(int(counter.read_text()) + 1))


def test_a_lock_holds_between_processes_and_leaves_no_file(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    workers = [
        multiprocessing.get_context("spawn").Process(target=count, args=(tmp_path, counter, 200))
        for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert counter.read_text() == "800"
    assert list((tmp_path / ".locks").iterdir()) == []


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    site = Site(tmp_path, "beef", "h")
    child = os.fork()
    if child == 0:
        with site.locked("x"):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    with site.locked("x"):
        pass


def _tail(token: str) -> subprocess.Popen[bytes]:
    """A process that has this argument, once the kernel shows it.

    execve(2) closes Popen's error pipe a moment before it sets the new command line.
    """
    process = subprocess.Popen(["tail", "-f", token])
    eventually(lambda: token in command_line(process.pid), f"command line of {process.pid}")
    return process


def test_only_a_process_with_the_token_is_ours(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    (tmp_path / "token").touch()
    token = str(tmp_path / "token")
    server, stranger = Server(pid_file, token), Server(pid_file, f"{token}-other")
    sleeper = _tail(token)
    try:
        pid_file.write_text(str(sleeper.pid))
        assert stranger.pid() is None
        assert not stranger.signal(signal.SIGTERM)
        assert not stranger.stop()
        assert server.pid() is None, "the stranger's stop took the file"
        pid_file.write_text(str(sleeper.pid))
        assert server.pid() == sleeper.pid
        assert server.stop()
        assert sleeper.wait() == -signal.SIGTERM
    finally:
        sleeper.kill()
        sleeper.wait()
    assert not pid_file.exists()
    assert not server.stop()


def test_a_server_whose_starter_was_killed_is_replaced(tmp_path: Path) -> None:
    """It runs, but has not written its pid: it is stopped, and one is started that has."""
    (tmp_path / "token").touch()
    server = Server(tmp_path / "pid", str(tmp_path / "token"))
    stray = _tail(server.token)
    started: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        if not started:
            started.append(_tail(server.token))
            raise HostFault("another is in the way")
        started.append(_tail(server.token))
        server.pid_file.write_text(str(started[-1].pid))

    try:
        assert server.ensure(start)
        assert stray.wait() == -signal.SIGTERM
        assert started[0].wait() == -signal.SIGTERM
        assert server.pid() == started[1].pid
        assert not server.ensure(start)
        server.stop()
    finally:
        for each in (stray, *started):
            each.kill()
            each.wait()


def test_a_server_that_does_not_start_is_an_error(tmp_path: Path) -> None:
    server = Server(tmp_path / "pid", str(tmp_path / "token"))

    def start() -> None:
        raise HostFault("no such option")

    with pytest.raises(HostFault, match="no such option"):
        server.ensure(start)


@pytest.fixture
def documents(tmp_path: Path) -> str:
    meta = {
        "uuid": "i-1",
        "hostname": "one",
        "launch_index": 0,
        "availability_zone": "nova",
        "public_keys": {"laptop": "ssh-ed25519 AAAA"},
    }
    for address in ("10.5.0.11", "10.5.0.12"):
        (tmp_path / address).mkdir()
    (tmp_path / "10.5.0.11" / "meta_data.json").write_text(json.dumps(meta))
    (tmp_path / "10.5.0.11" / "user_data").write_text("#!/bin/sh\n")
    (tmp_path / "10.5.0.11" / "other").write_text("no document")
    (tmp_path / "10.5.0.12" / "meta_data.json").write_text("{}")
    return str(tmp_path)


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/", b"2009-04-04\nlatest\nopenstack"),
        ("/openstack", b"2012-08-10\n2013-04-04\n2013-10-17\n2015-10-15\nlatest"),
        ("/openstack/", b"2012-08-10\n2013-04-04\n2013-10-17\n2015-10-15\nlatest"),
        ("/openstack/latest", b"meta_data.json\npassword\nuser_data"),
        ("/openstack/2012-08-10/", b"meta_data.json\nuser_data"),
        ("/openstack/2013-04-04/password", b""),
        ("/openstack/latest/user_data", b"#!/bin/sh\n"),
        ("/latest/", b"meta-data/\nuser-data"),
        ("/latest/user-data", b"#!/bin/sh\n"),
        ("/2009-04-04/meta-data/instance-id", b"i-1"),
        ("/latest/meta-data/hostname?x=1", b"one"),
        ("/latest/meta-data/local-ipv4", b"10.5.0.11"),
        ("/latest/meta-data/placement/availability-zone", b"nova"),
        ("/latest/meta-data/ami-launch-index", b"0"),
        (
            "/2009-04-04/meta-data/",
            b"ami-launch-index\nhostname\ninstance-id\nlocal-hostname\nlocal-ipv4\n"
            b"placement/\npublic-keys/",
        ),
        ("/latest/meta-data/public-keys/", b"0=laptop"),
        ("/latest/meta-data/public-keys/0=laptop/", b"openssh-key"),
        ("/latest/meta-data/public-keys/0/", b"openssh-key"),
        ("/latest/meta-data/public-keys/0/openssh-key", b"ssh-ed25519 AAAA"),
    ],
)
def test_a_guest_is_answered_in_both_forms(documents: str, path: str, content: bytes) -> None:
    said = answer(documents, "10.5.0.11", path)
    assert (said.status, said.content) == ("200 OK", content)


@pytest.mark.parametrize(
    "path",
    [
        "/openstack/latest/other",
        "/openstack/latest/../10.5.0.11/user_data",
        "/openstack/latest/network_data.json",
        "/openstack/2013-10-17/network_data.json",
        "/openstack/2018-08-27/meta_data.json",
        "/openstack/latest/password/x",
        "/latest/meta-data/hostname=x",
        "/latest/meta-data/hostname/x",
        "/latest/meta-data/public-keys/1/openssh-key",
        "/latest/meta-data/public-keys/0/../0",
        "/latest/meta-data/uuid",
        "/10.5.0.11/user_data",
        "/latest/dynamic",
    ],
)
def test_anything_else_is_not_found(documents: str, path: str) -> None:
    for guest in ("10.5.0.11", "10.5.0.12", "10.5.0.13"):
        assert answer(documents, guest, path).status == "404 Not Found"


def test_who_has_no_documents_is_told_nothing(documents: str) -> None:
    assert answer(documents, "10.5.0.13", "/openstack/latest/meta_data.json").content == (
        metadata_server.NOT_FOUND.content
    )
    assert answer(documents, "10.5.0.12", "/latest/meta-data/instance-id").status.startswith("404")


def test_a_release_is_as_rfc_2131_has_it() -> None:
    from ipaddress import IPv4Address

    sent = packet(IPv4Address("10.5.0.11"), "fa:16:3e:00:00:11", IPv4Address("10.5.0.2"))
    assert sent[:4] == bytes((1, 1, 6, 0))
    assert sent[12:16] == IPv4Address("10.5.0.11").packed
    assert sent[28:34] == bytes.fromhex("fa163e000011")
    assert sent[236:240] == bytes((99, 130, 83, 99))
    assert sent[240:] == bytes((53, 1, 7, 54, 4, 10, 5, 0, 2, 255))


def test_documents_of_other_names_are_refused() -> None:
    from blocks.fabric.metadata import Metadata
    from tests.unit.test_fabric_rules import binding

    with pytest.raises(InvalidRequest):
        Metadata(Site(Path("/nowhere"), "beef", "h")).put(binding(), {"../../x": b""})

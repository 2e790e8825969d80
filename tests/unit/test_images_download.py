"""Downloads: resumed, bounded, and from nowhere that they must not come from."""

from __future__ import annotations

import ipaddress
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.errors import Denied, FiftyError, InvalidRequest, NotFound, Transient, UnsafeImage
from blocks.images.intake.download import Downloader, Pace
from blocks.images.intake.reach import Reach
from tests.certificates import Authority
from tests.web_server import Served, WebServer, web_server

MIB = 1 << 20
CONTENT = os.urandom(3 * MIB)
LOOPBACK = Reach((ipaddress.ip_network("127.0.0.0/8"),))


@pytest.fixture(name="server")
def _server() -> Iterator[WebServer]:
    with web_server() as server:
        yield server


def nothing(_done: int, _total: int | None) -> None:
    """Progress that nobody looks at."""


def fetch(server: WebServer, path: Path, *, name: str = "/image", checked: bool = False) -> bytes:
    downloader = Downloader(LOOPBACK)
    downloader.fetch(server.url(name), path, 4 * MIB, nothing, checked=checked)
    return path.read_bytes()


def test_a_whole_file(server: WebServer, tmp_path: Path) -> None:
    server.files["/image"] = Served(CONTENT)
    seen: list[tuple[int, int | None]] = []
    url = server.url("/image")
    Downloader(LOOPBACK).fetch(url, tmp_path / "f", 4 * MIB, lambda *at: seen.append(at))
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert seen[0] == (0, 3 * MIB)
    assert seen[-1] == (3 * MIB, 3 * MIB)
    assert server.asked == [("/image", None)]


def test_what_broke_off_goes_on(server: WebServer, tmp_path: Path) -> None:
    server.files["/image"] = Served(CONTENT, breaks_at=MIB)
    assert fetch(server, tmp_path / "f") == CONTENT
    # No byte was sent twice.
    assert server.sent == 3 * MIB
    assert [wanted for _path, wanted in server.asked] == [
        None,
        f"bytes={MIB}-",
        f"bytes={2 * MIB}-",
    ]


def test_what_is_zero_takes_no_room(server: WebServer, tmp_path: Path) -> None:
    """Also where it breaks off in the middle of a hole."""
    content = CONTENT[:MIB] + bytes(2 * MIB) + CONTENT[:1000] + bytes(MIB // 2)
    for breaks_at in (None, 5 * MIB // 4):
        server.sent = 0
        server.files["/image"] = Served(content, breaks_at=breaks_at)
        assert fetch(server, tmp_path / "f") == content
        assert server.sent == len(content)
        assert (tmp_path / "f").stat().st_blocks * 512 < 2 * MIB
        (tmp_path / "f").unlink()


def test_a_later_process_goes_on(server: WebServer, tmp_path: Path) -> None:
    server.files["/image"] = Served(CONTENT, breaks_at=0)
    with pytest.raises(Transient):
        fetch(server, tmp_path / "f")
    (tmp_path / "f").write_bytes(CONTENT[:MIB])
    server.files["/image"] = Served(CONTENT)
    server.sent = 0
    assert fetch(server, tmp_path / "f") == CONTENT
    assert server.sent == 2 * MIB


def test_another_file_is_fetched_anew(server: WebServer, tmp_path: Path) -> None:
    server.files["/image"] = Served(CONTENT)
    fetch(server, tmp_path / "f")
    os.truncate(tmp_path / "f", MIB)
    other = os.urandom(2 * MIB)
    server.files["/image"] = Served(other, etag='"two"')
    assert fetch(server, tmp_path / "f") == other


@pytest.mark.parametrize(("checked", "sent"), [(False, 3 * MIB), (True, 2 * MIB)])
def test_without_a_validator(server: WebServer, tmp_path: Path, checked: bool, sent: int) -> None:
    """Then only a checksum tells whether the rest is of the same file."""
    server.files["/image"] = Served(CONTENT, etag=None)
    fetch(server, tmp_path / "f")
    os.truncate(tmp_path / "f", MIB)
    server.sent = 0
    assert fetch(server, tmp_path / "f", checked=checked) == CONTENT
    assert server.sent == sent


def test_a_server_without_ranges(server: WebServer, tmp_path: Path) -> None:
    server.files["/image"] = Served(CONTENT, ranges=False)
    fetch(server, tmp_path / "f")
    os.truncate(tmp_path / "f", MIB)
    assert fetch(server, tmp_path / "f") == CONTENT


@pytest.mark.parametrize(
    ("served", "error", "sent"),
    [
        (Served(CONTENT, length=5 * MIB, breaks_at=0), UnsafeImage, 0),
        (Served(CONTENT, length=None, endless=True), UnsafeImage, 32 * MIB),
        (Served(CONTENT, length=4 * MIB), Transient, 4 * MIB),
        (Served(CONTENT, breaks_at=0), Transient, 0),
        (Served(length=None, headers={"Content-Length": "9" * 5000}), UnsafeImage, 0),
        (Served(CONTENT, headers={"Content-Encoding": "gzip"}), InvalidRequest, 32 * MIB),
        (Served(status=404), NotFound, 0),
        (Served(status=403), InvalidRequest, 0),
        (Served(status=503), Transient, 0),
        (Served(status=302, headers={"Location": "/image"}), InvalidRequest, 0),
        (Served(status=302, headers={"Location": "file:///etc/shadow"}), InvalidRequest, 0),
        (Served(status=302, headers={"Location": "ftp://127.0.0.1/x"}), InvalidRequest, 0),
        (Served(status=302, headers={"Location": "http://u:p@127.0.0.1/"}), InvalidRequest, 0),
        (Served(status=302, headers={"Location": "http://169.254.169.254/"}), Denied, 0),
        (Served(status=302, headers={"Location": "http://[::1]/"}), Denied, 0),
        (Served(status=302, headers={"Location": "http://[::ffff:10.0.0.1]/"}), Denied, 0),
    ],
)
def test_a_server_that_misbehaves(
    server: WebServer, tmp_path: Path, served: Served, error: type[FiftyError], sent: int
) -> None:
    """Bounded: what comes beyond the limit is what was under way already."""
    server.files["/image"] = served
    with pytest.raises(error):
        fetch(server, tmp_path / "f")
    assert server.sent <= sent
    assert not (tmp_path / "f").exists() or (tmp_path / "f").stat().st_size <= 4 * MIB


def test_a_redirect_is_followed(server: WebServer, tmp_path: Path) -> None:
    server.files["/old"] = Served(status=301, headers={"Location": "/image"})
    server.files["/image"] = Served(CONTENT)
    assert fetch(server, tmp_path / "f", name="/old") == CONTENT


@pytest.mark.parametrize(
    ("begin", "why"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", "only"),
        (b"HTTP/1.1 200 OK\r\nX: ", "no answer within"),
    ],
    ids=["in the body", "in the headers"],
)
def test_a_server_that_dawdles(tmp_path: Path, begin: bytes, why: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        over = threading.Event()

        def dawdle() -> None:
            connection, _ = server.accept()
            connection.recv(1000)
            connection.sendall(begin)
            while not over.wait(0.05):
                try:
                    connection.sendall(b".")
                except OSError:
                    break
            connection.close()

        thread = threading.Thread(target=dawdle)
        thread.start()
        reach = Reach([ipaddress.ip_network("127.0.0.0/8")], answer_s=0.3)
        downloader = Downloader(reach, Pace(window_s=0.3, least_bytes=500))
        try:
            with pytest.raises(Transient, match=why):
                downloader.fetch(f"http://127.0.0.1:{port}/", tmp_path / "f", MIB, nothing)
        finally:
            over.set()
            thread.join()


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/shadow",
        "ftp://example.org/image",
        "gopher://example.org/",
        "http://user:password@example.org/",
        "http://user@example.org/",
        "http:///image",
        "http://example.org:port/",
        "http://example.org/a b",
        "http://example.org/\r\nX: y",
        "//example.org/image",
        "http://[::1/",
    ],
)
def test_a_wrong_url(tmp_path: Path, url: str) -> None:
    with pytest.raises(InvalidRequest):
        Downloader(Reach()).fetch(url, tmp_path / "f", MIB, nothing)
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.1", "2130706433", "0x7f.1", "0.0.0.0", "localhost", "10.0.0.1",
        "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "224.0.0.1",
        "255.255.255.255",
        "[::1]", "[::]", "[fe80::1]", "[fd00::1]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(server: WebServer, tmp_path: Path, host: str) -> None:
    server.files["/image"] = Served(CONTENT)
    with pytest.raises(Denied, match="images are not fetched from"):
        Downloader(Reach()).fetch(server.url("/image", host), tmp_path / "f", MIB, nothing)
    assert server.asked == []


def test_a_name_that_leads_elsewhere_at_a_second_look(
    server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked up once for a connection, which goes to what was compared."""
    looks: list[str] = []
    real = socket.getaddrinfo

    def rebinding(host: str, *words: object, **more: object) -> object:
        if host != "rebind.example":
            return real(host, *words, **more)  # type: ignore[arg-type]
        looks.append(host)
        address = "127.0.0.2" if len(looks) == 1 else "127.0.0.1"
        return real(address, *words, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    only_two = Reach((ipaddress.ip_network("127.0.0.2/32"),))
    url = server.url("/image", "rebind.example")
    with pytest.raises((Transient, Denied)):
        Downloader(only_two).fetch(url, tmp_path / "f", MIB, nothing)
    assert server.asked == []


def test_what_the_environment_says_is_for_others(
    server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["/image"] = Served(CONTENT)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1/")
    assert fetch(server, tmp_path / "f") == CONTENT


@pytest.fixture(name="authority")
def _authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """An authority that this host trusts."""
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    return authority


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_https(authority: Authority, tmp_path: Path, host: str) -> None:
    """Also resumed, and by the address that was compared: the certificate is of the name."""
    with web_server(authority.server(host)) as server:
        server.files["/image"] = Served(CONTENT, breaks_at=MIB)
        Downloader(LOOPBACK).fetch(server.url("/image", host), tmp_path / "f", 4 * MIB, nothing)
        assert (tmp_path / "f").read_bytes() == CONTENT
        assert server.sent == 3 * MIB


@pytest.mark.parametrize("why", ["nobody", "other name", "over", "other authority"])
def test_a_certificate_that_is_not_accepted(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    tls = authority.server("127.0.0.1")
    if why == "nobody":
        monkeypatch.delenv("SSL_CERT_FILE")
    elif why == "other name":
        tls = authority.server("localhost", "127.0.0.2")
    elif why == "over":
        tls = authority.server("127.0.0.1", days=-1)
    else:
        tls = Authority(tmp_path, "others").server("127.0.0.1")
    # What requests itself would go by is for other programs.
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.file))
    with web_server(tls) as server:
        server.files["/image"] = Served(CONTENT)
        with pytest.raises(InvalidRequest, match="certificate is not accepted"):
            Downloader(LOOPBACK).fetch(server.url("/image"), tmp_path / "f", 4 * MIB, nothing)
        assert server.asked == []
    assert not (tmp_path / "f").exists()


def test_a_redirect_from_https_to_http(
    authority: Authority, server: WebServer, tmp_path: Path
) -> None:
    """It is refused, wherever it leads; the other way is followed."""
    server.files["/image"] = Served(CONTENT)
    with web_server(authority.server("127.0.0.1")) as secure:
        for target in (server.url("/image"), "http://images.example/image"):
            secure.files["/old"] = Served(status=302, headers={"Location": target})
            with pytest.raises(Denied, match="from https"):
                Downloader(LOOPBACK).fetch(secure.url("/old"), tmp_path / "f", 4 * MIB, nothing)
        assert server.asked == []
        assert not (tmp_path / "f").exists()
        secure.files["/image"] = Served(CONTENT)
        server.files["/old"] = Served(status=302, headers={"Location": secure.url("/image")})
        assert fetch(server, tmp_path / "f", name="/old") == CONTENT

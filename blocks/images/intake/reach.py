"""Where an import may fetch from: http and https, at public addresses and allowed networks.

A name is looked up once for each connection, every address of it is compared, and the
connection goes to an address that was: so a name that leads elsewhere at a second look
(DNS rebinding) leads nowhere. Redirects are followed by `download`, which asks here anew.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import NewConnectionError
from urllib3.poolmanager import PoolManager

from blocks.errors import Denied, InvalidRequest

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_SCHEMES = ("http", "https")
#: How long a server may take for its status and headers, however many bytes at a time.
_ANSWER_S = 60.0
#: Addresses that stand for others, which would be reached past the comparison.
_STAND_FOR_OTHERS = tuple(
    ipaddress.ip_network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16")
)


def require_fetchable(url: str) -> None:
    """Check the form of a URL.

    Raises:
        InvalidRequest: It is not http or https, has no host, or holds user or password.
    """
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidRequest(f"the URL is malformed: {error}") from error
    if parts.scheme not in _SCHEMES:
        raise InvalidRequest(
            f"the URL's scheme is {parts.scheme[:20]!r}", hint="use http or https, or a file's path"
        )
    if not host:
        raise InvalidRequest("the URL names no host")
    if "@" in parts.netloc:
        raise InvalidRequest(
            "the URL holds a user or password, which would be kept with the request",
            hint="use a URL that needs neither",
        )
    if any(ord(letter) <= 32 or ord(letter) == 127 for letter in url):
        raise InvalidRequest("the URL holds blanks or control characters", hint="quote them")


class Reach:
    """The addresses that may be connected to.

    Args:
        allowed: Networks that are not public, and allowed all the same.
        answer_s: How long a server may take until its headers are there.
    """

    def __init__(self, allowed: Sequence[Network] = (), answer_s: float = _ANSWER_S) -> None:
        self._allowed = tuple(allowed)
        self.answer_s = answer_s

    def permits(self, address: Address) -> bool:
        """Whether an address may be connected to."""
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        for network in self._allowed:
            if address.version == network.version and address in network:
                return True
        if any(address in network for network in _STAND_FOR_OTHERS):
            return False
        return address.is_global and not address.is_multicast and not address.is_reserved

    def resolve(self, host: str, port: int) -> list[str]:
        """The addresses of a name.

        Raises:
            Denied: One of them may not be connected to.
            OSError: The name has none.
        """
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(one[4][0]) for one in found))
        for text in addresses:
            if not self.permits(ipaddress.ip_address(text.partition("%")[0])):
                raise Denied(
                    f"{host} is at {text}, which images are not fetched from",
                    hint="an operator can allow its network: FIFTY_IMPORT_NETWORKS",
                )
        return addresses

    def session(self) -> requests.Session:
        """A session of requests that connects nowhere else, and takes nothing from the host.

        No proxy, no .netrc, no cookies: what the environment says is for other programs.
        """
        session = requests.Session()
        session.trust_env = False
        session.mount("http://", _Adapter(self))
        session.mount("https://", _Adapter(self))
        return session


class _Adapter(HTTPAdapter):
    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - requests' own
        # Whom this host trusts (OpenSSL's own: `SSL_CERT_FILE` too), and whom requests does.
        super().init_poolmanager(*args, **options, ssl_context=ssl.create_default_context())
        manager: PoolManager = self.poolmanager
        manager.pool_classes_by_scheme = {
            "http": _pool_class(HTTPConnectionPool, HTTPConnection, self._reach),
            "https": _pool_class(HTTPSConnectionPool, HTTPSConnection, self._reach),
        }


def _cut(sock: socket.socket, late: threading.Event) -> None:
    """End a connection that another thread reads from."""
    late.set()
    try:
        # Not as TLS does it, which is not for two threads at once.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        return  # the server has ended it


def _pool_class(pool: Any, connection: Any, reach: Reach) -> Any:  # noqa: ANN401 - two kinds of each
    """A kind of pool whose connections go where `reach` permits."""

    class Guarded(connection):  # type: ignore[misc]
        def _new_conn(self) -> socket.socket:
            try:
                addresses = reach.resolve(self._dns_host, self.port)
            except OSError as error:
                raise NewConnectionError(self, f"{self.host} is not known: {error}") from error
            last: OSError = OSError("no address")
            for address in addresses:
                try:
                    return socket.create_connection((address, self.port), self.timeout)
                except OSError as error:
                    last = error
            raise NewConnectionError(self, f"no connection: {last}") from last

        def getresponse(self) -> Any:  # noqa: ANN401 - urllib3's own
            # The socket's own limit begins anew with each byte.
            late = threading.Event()
            timer = threading.Timer(reach.answer_s, _cut, (self.sock, late))
            timer.start()
            try:
                answer = super().getresponse()
            finally:
                timer.cancel()
            if late.is_set():  # http.client takes the end of a connection for that of the headers
                raise ConnectionAbortedError(f"no answer within {reach.answer_s:g} s")
            return answer

    class GuardedPool(pool):  # type: ignore[misc]
        ConnectionCls = Guarded

    return GuardedPool

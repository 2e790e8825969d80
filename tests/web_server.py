"""A web server on loopback that serves files, and misbehaves on purpose."""

from __future__ import annotations

import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PIECE = 64 * 1024


@dataclass
class Served:
    """A file that is served.

    Attributes:
        content: Its bytes.
        etag: Its validator; None: there is none.
        status: The status of the answer.
        headers: Further headers, or other ones.
        breaks_at: Each answer ends after so many bytes, whatever its length.
        ranges: Whether a part can be asked for.
        length: What the server says the length is; None: nothing; -1: the truth.
        endless: The content is repeated without end.
        gate: After `gate_at` bytes of an answer this is waited for.
    """

    content: bytes = b""
    etag: str | None = '"one"'
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    breaks_at: int | None = None
    ranges: bool = True
    length: int | None = -1
    endless: bool = False
    gate: threading.Event | None = None
    gate_at: int = 0


class WebServer:
    """The server.

    Args:
        tls: Serves https by it.

    Attributes:
        files: What is served, by path; may be changed while it runs.
        asked: The requests so far: path and `Range`.
        sent: The bytes of all bodies so far.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.files: dict[str, Served] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.sent = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, *_words: Any) -> None:  # noqa: ANN401
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._scheme = "https" if tls else "http"
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"{self._scheme}://{host}:{self.port}{path}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("range")
        self.asked.append((request.path, wanted))
        file = self.files.get(request.path)
        if file is None:
            request.send_error(404)
            return
        start, status = 0, file.status
        match = re.fullmatch(r"bytes=(\d+)-", wanted or "")
        same = request.headers.get("if-range") in (None, file.etag)
        if match and file.ranges and same:
            start, status = int(match[1]), 206
        request.send_response(status)
        total = len(file.content) if file.length == -1 else file.length
        if status == 206:
            request.send_header("Content-Range", f"bytes {start}-{len(file.content) - 1}/{total}")
        if file.etag:
            request.send_header("ETag", file.etag)
        if total is not None:
            request.send_header("Content-Length", str(total - start))
        for name, value in file.headers.items():
            request.send_header(name, value)
        request.send_header("Connection", "close")
        request.end_headers()
        request.close_connection = True
        try:
            self._send(request, file, start)
        except OSError:
            return  # whoever asked has heard enough

    def _send(self, request: BaseHTTPRequestHandler, file: Served, start: int) -> None:
        end = len(file.content) if file.breaks_at is None else start + file.breaks_at
        body = memoryview(file.content)[start:end]
        while True:
            for at in range(0, len(body), PIECE):
                if file.gate and at >= file.gate_at:
                    file.gate.wait()
                request.wfile.write(body[at : at + PIECE])
                self.sent += len(body[at : at + PIECE])
            if not file.endless:
                return


@contextmanager
def web_server(tls: ssl.SSLContext | None = None) -> Iterator[WebServer]:
    server = WebServer(tls)
    try:
        yield server
    finally:
        server.close()

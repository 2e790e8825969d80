"""Prefect's server application with better manners towards plain HTTP clients.

What `prefect server start` does, with a layer of ours around the application:

- a repeated idempotency key with other parameters gets 409, where Prefect answers 200 with
  the first run and ignores the new parameters;
- runs whose process was killed are found (`deployments.prefect_watch`);
- writers wait for their turn at SQLite's lock (`deployments.patient_sqlite`), and 503, which
  is its "busy" and means "send it again", says after how many seconds.

Imports Prefect.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn
from prefect.logging.configuration import setup_logging
from prefect.server.api.server import create_app
from prefect.server.database.dependencies import set_database_config
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, get_current_settings
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from blocks.settings import settings
from deployments.patient_sqlite import PatientSqliteConfiguration
from deployments.prefect_watch import Watching
from deployments.repeated_key import conflict, differing

_CREATE_RUN = re.compile(r"(/api/deployments/[0-9a-fA-F-]{36})/create_flow_run/?")
#: Prefect refuses parameters of more than 512 KiB; beyond this, nothing is looked at.
_LOOKED_AT = 2 * 1024 * 1024
_BUSY = 503
_RETRY_AFTER_S = b"1"


def serve(host: str, port: int) -> None:
    """Serve the API, the UI and Prefect's background services until SIGTERM or SIGINT.

    Args:
        host: The address to listen on.
        port: The port.
    """
    setup_logging()
    server = get_current_settings().server
    database = PREFECT_API_DATABASE_CONNECTION_URL.value()
    if database.startswith("sqlite"):
        set_database_config(PatientSqliteConfiguration(database))
    uvicorn.run(
        Watching(Manners(create_app(final=True)), settings().host),
        host=host,
        port=port,
        timeout_keep_alive=server.api.keepalive_timeout,
        ws_ping_interval=server.api.websocket_ping_interval,
        ws_ping_timeout=server.api.websocket_ping_timeout,
        log_level=server.logging_level.lower(),
    )


class Manners:
    """The layer around Prefect's application.

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a connection; everything but HTTP goes straight through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        send = _with_retry_after(send)
        found = _CREATE_RUN.fullmatch(scope["path"]) if scope["method"] == "POST" else None
        if found is None:
            await self._app(scope, receive, send)
            return
        request = await _read(receive)
        sent = _object(request.body) if request.complete else {}
        key = sent.get("idempotency_key")
        if not isinstance(key, str):
            await self._app(scope, request.again(receive), send)
            return
        answer = _Answer()
        try:
            await self._app(_uncompressed(scope), request.again(receive), answer.take)
        except Exception:
            # Starlette answers (503, say), and then raises for the server's log.
            await answer.give(send)
            raise
        told = await self._conflict(key, found[1], scope, sent, answer)
        if told is None:
            await answer.give(send)
        else:
            await _refuse(send, told)

    async def _conflict(
        self, key: str, deployment: str, scope: Scope, sent: Mapping[str, Any], answer: _Answer
    ) -> str | None:
        """What is wrong with a repeated key, if anything is."""
        run = _object(answer.body)
        if answer.status != httpx.codes.OK or "parameters" not in run:
            return None
        # What is not sent is taken from the deployment; whoever got here may read it.
        headers = [(k, v) for k, v in scope["headers"] if k in (b"authorization", b"host")]
        transport = httpx.ASGITransport(self._app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            there = await client.get(deployment, headers=headers)
        defaults = _object(there.content).get("parameters") or {}
        fields = differing(run["parameters"], {**defaults, **(sent.get("parameters") or {})})
        return conflict(key, run["id"], fields) if fields else None


@dataclass
class _Request:
    """The beginning of a request's body, or all of it."""

    messages: list[Message] = field(default_factory=list)
    complete: bool = False

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)

    def again(self, receive: Receive) -> Receive:
        """Give what was read to the application, then what still comes."""
        waiting = list(self.messages)

        async def give() -> Message:
            return waiting.pop(0) if waiting else await receive()

        return give


async def _read(receive: Receive) -> _Request:
    request, size = _Request(), 0
    while size <= _LOOKED_AT:
        message = await receive()
        request.messages.append(message)
        size += len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            request.complete = message["type"] == "http.request"
            break
    return request


@dataclass
class _Answer:
    """The application's answer, kept until it is known to be right."""

    messages: list[Message] = field(default_factory=list)

    async def take(self, message: Message) -> None:
        self.messages.append(message)

    async def give(self, send: Send) -> None:
        for message in self.messages:
            await send(message)

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"]) if self.messages else 0

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)


def _object(body: bytes) -> dict[str, Any]:
    """A JSON object; empty where it is none."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _uncompressed(scope: Scope) -> Scope:
    """The same request from somebody who cannot unpack gzip."""
    headers = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
    return {**scope, "headers": headers}


def _with_retry_after(send: Send) -> Send:
    async def tell(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == _BUSY:
            headers = [*message.get("headers", ()), (b"retry-after", _RETRY_AFTER_S)]
            message = {**message, "headers": headers}
        await send(message)

    return tell


async def _refuse(send: Send, detail: str) -> None:
    body = json.dumps({"detail": detail}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    status = int(httpx.codes.CONFLICT)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

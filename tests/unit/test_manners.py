"""The layer around Prefect's application, around small applications that misbehave on purpose."""

from __future__ import annotations

import asyncio
import gzip
import json
import uuid
from typing import Any

import httpx
import pytest
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from deployments.prefect_app import Manners

PATH = f"/api/deployments/{uuid.uuid4()}"


class Application:
    """Answers every trigger with the same first run, and says what it was sent."""

    def __init__(self, status: int = 200, *, raises: bool = False) -> None:
        self.status = status
        self.raises = raises
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", scope["method"] == "POST"
        while more:
            message = await receive()
            body, more = body + message["body"], message.get("more_body", False)
        self.bodies.append(body)
        run = {"id": "run-1", "parameters": {"request": {"name": "a"}, "by": "default"}}
        answer: Response = JSONResponse(run, status_code=self.status)
        if scope["method"] == "GET":
            answer = JSONResponse({"parameters": {"by": "default"}})
        elif b"accept-encoding" in dict(scope["headers"]):
            zipped = gzip.compress(json.dumps(run).encode())
            answer = Response(zipped, self.status, {"Content-Encoding": "gzip"})
        await answer(scope, receive, send)
        if self.raises:
            raise RuntimeError("for the log")


def post(application: Application, content: bytes, path: str = "/create_flow_run") -> Any:  # noqa: ANN401
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(Manners(application), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return await client.post(PATH + path, content=content)

    return asyncio.run(ask())


def body(name: str) -> bytes:
    return json.dumps({"idempotency_key": "k", "parameters": {"request": {"name": name}}}).encode()


def test_the_same_again_is_the_first_run() -> None:
    application = Application()
    answer = post(application, body("a"))
    assert (answer.status_code, answer.json()["id"]) == (200, "run-1")
    assert application.bodies[0] == body("a")


def test_something_else_under_the_same_key_is_a_conflict() -> None:
    answer = post(Application(), body("b"))
    assert answer.status_code == 409
    assert "differ in request.name" in answer.json()["detail"]


@pytest.mark.parametrize("status", [201, 401, 404, 422, 500])
def test_any_other_answer_is_left_as_it_is(status: int) -> None:
    answer = post(Application(status), body("b"))
    assert (answer.status_code, answer.json()["id"]) == (status, "run-1")
    assert "retry-after" not in answer.headers


@pytest.mark.parametrize("path", ["/create_flow_run", "/other"])
def test_who_is_to_come_again_is_told_when(path: str) -> None:
    answer = post(Application(503, raises=True), body("a"), path)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b'{"idempotency_key": 7}', b"x" * 3_000_000]
)
def test_what_holds_no_key_goes_through_whole(content: bytes) -> None:
    application = Application()
    assert post(application, content).status_code == 200
    assert application.bodies == [content]

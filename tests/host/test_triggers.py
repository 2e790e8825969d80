"""Flow runs triggered over HTTP, before anybody runs them: keys, sizes, nonsense."""

from __future__ import annotations

import gzip
import json
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest
import requests

from blocks.errors import Conflict, InvalidRequest, NotFound
from blocks.settings import Settings
from deployments import detached
from deployments.registration import register
from tests.prefect_api import api

pytestmark = pytest.mark.host

REQUEST = {"name": "hello", "image": "micro", "networks": ["lab"], "flavor": "tiny"}


@pytest.fixture(scope="module")
def create_vm(prefect_server: str) -> Iterator[str]:
    """The path of create-vm's deployment; its runs wait, as nobody serves."""
    del prefect_server
    register(Settings(_env_file=None))
    path = f"/deployments/{api('GET', '/deployments/name/create-vm/fifty').json()['id']}"
    yield path
    for run in api("POST", "/flow_runs/filter", json={}).json():
        api("DELETE", f"/flow_runs/{run['id']}")


def trigger(path: str, **more: Any) -> requests.Response:  # noqa: ANN401
    return api("POST", f"{path}/create_flow_run", **more)


def test_a_repeated_key_is_the_same_run_and_other_parameters_are_a_conflict(
    create_vm: str,
) -> None:
    key = str(uuid.uuid4())
    body = {"parameters": {"request": REQUEST}, "idempotency_key": key}
    first = trigger(create_vm, json=body)
    again = trigger(create_vm, json=body)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]
    assert again.json()["parameters"] == {"request": REQUEST}

    other = {**REQUEST, "flavor": "vast", "user_data": "the secret"}
    refused = trigger(create_vm, json={**body, "parameters": {"request": other}})
    assert refused.status_code == 409
    detail = refused.json()["detail"]
    assert first.json()["id"] in detail
    assert "differ in request.flavor, request.user_data" in detail
    assert "vast" not in detail
    assert "secret" not in detail
    # Parameters left out are other parameters too.
    assert trigger(create_vm, json={"idempotency_key": key}).status_code == 409
    # Another flow's keys are its own.
    delete_vm = f"/deployments/{api('GET', '/deployments/name/delete-vm/fifty').json()['id']}"
    reference = {"parameters": {"request": {"name": "x"}}, "idempotency_key": key}
    assert trigger(delete_vm, json=reference).status_code == 201
    found = api("GET", f"/flow_runs/{first.json()['id']}").json()
    assert found["parameters"] == {"request": REQUEST}


def test_a_burst_with_one_key_is_one_run(create_vm: str) -> None:
    body = {"parameters": {"request": REQUEST}, "idempotency_key": str(uuid.uuid4())}

    def send(_number: int) -> str:
        while True:
            answer = trigger(create_vm, json=body)
            if answer.status_code != 503:
                assert answer.status_code in (200, 201), answer.text
                return str(answer.json()["id"])
            assert answer.headers["Retry-After"] == "1"

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(send, range(16)))) == 1


def test_the_password_is_asked_for_before_anything_else(create_vm: str) -> None:
    body = {"parameters": {"request": REQUEST}, "idempotency_key": str(uuid.uuid4())}
    assert trigger(create_vm, json=body, auth=None).status_code == 401
    assert trigger(create_vm, json=body, auth=("fifty", "wrong")).status_code == 401
    assert trigger(create_vm, json=body).status_code == 201
    assert trigger(create_vm, json=body, auth=("fifty", "wrong")).status_code == 401


def test_nonsense_is_refused_and_the_server_stays_well(create_vm: str) -> None:
    big = {"parameters": {"request": {**REQUEST, "user_data": "x" * 10_000_000}}}
    key = {"idempotency_key": str(uuid.uuid4())}
    answer = trigger(create_vm, json={**big, **key})
    assert answer.status_code == 422
    assert "524,288" in answer.text.replace("524288", "524,288"), answer.text[:500]
    header = {"Content-Type": "application/json"}
    for content in (
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"idempotency_key": "k", "parameters": "no object"}',
        b'{"idempotency_key": {"a": 1}}',
        b"[" * 200_000,
        gzip.compress(b"{}"),
    ):
        answer = trigger(create_vm, data=content, headers=header)
        assert 400 <= answer.status_code < 500, (content[:40], answer.status_code, answer.text)
    unknown = {**key, "parameters": {"request": REQUEST}}
    assert trigger(f"/deployments/{uuid.uuid4()}", json=unknown).status_code == 404
    assert trigger("/deployments/not-an-id", json=unknown).status_code in (404, 422)
    assert api("GET", "/health").json() is True


def test_detach_sends_once_and_tells_what_is_wrong(create_vm: str) -> None:
    key = str(uuid.uuid4())
    first = detached.send("create-vm/fifty", REQUEST, key)
    assert detached.send("create-vm/fifty", REQUEST, key) == first
    with pytest.raises(Conflict, match=r"differ in request\.name") as raised:
        detached.send("create-vm/fifty", {**REQUEST, "name": "other"}, key)
    assert "another id" in raised.value.hint
    with pytest.raises(InvalidRequest, match="Prefect takes 512"):
        detached.send("create-vm/fifty", {**REQUEST, "user_data": "x" * 600_000}, key)
    with pytest.raises(NotFound, match="no deployment 'create-vm/nowhere'"):
        detached.send("create-vm/nowhere", REQUEST, key)


class Busy(BaseHTTPRequestHandler):
    """Another server: busy at first, then with the first run for whatever is sent."""

    busy: ClassVar[list[int]] = []
    keys: ClassVar[list[str]] = []
    real = ""

    def do_GET(self) -> None:
        self._pass_on()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self.path.endswith("/create_flow_run"):
            self._pass_on(body)
            return
        self.keys.append(json.loads(body)["idempotency_key"])
        if self.busy:
            self._answer(self.busy.pop(), b'{"exception_message": "Service Unavailable"}')
            return
        sent = json.loads(body)
        sent["parameters"] = {"request": {**REQUEST, "name": "first"}}
        self._pass_on(json.dumps(sent).encode())

    def _pass_on(self, body: bytes | None = None) -> None:
        header = {name: self.headers[name] for name in ("Authorization", "Content-Type")}
        answer = requests.request(
            self.command, self.real + self.path, data=body, headers=header, timeout=60
        )
        self._answer(answer.status_code, answer.content)

    def _answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def other_server(real: str) -> Iterator[str]:
    Busy.real = real.removesuffix("/api")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Busy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/api"
    finally:
        server.shutdown()
        server.server_close()


def test_detach_is_patient_and_knows_another_servers_silence(
    create_vm: str, prefect_server: str
) -> None:
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    key = str(uuid.uuid4())
    with (
        other_server(prefect_server) as url,
        temporary_settings(
            # Without Prefect's own patience, so that ours is seen.
            {PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 0}
        ),
    ):
        Busy.busy[:] = [503, 429]
        with pytest.raises(Conflict, match=r"differ in request\.name"):
            detached.send("create-vm/fifty", REQUEST, key)
        assert Busy.keys == [key] * 3

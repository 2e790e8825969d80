"""Events of VMs as Prefect has them, and an automation that calls a webhook when one fails."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cloud import Cloud
from tests.prefect_api import api
from tests.service import examples
from tests.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

LIKE_THIS = ("--image", "micro", "--flavor", "tiny", "--network", "lab")
NOTIFY = "notify-on-failure.yaml"


def events_of(instance_id: str) -> list[dict[str, Any]]:
    """What Prefect has about a VM, in order; steps' own event of the request left out."""
    document = {
        "filter": {"resource": {"id": [f"fifty.vm.{instance_id}"]}, "order": "ASC"},
        "limit": 50,
    }
    found = api("POST", "/events/filter", json=document).json()["events"]
    return [event for event in found if event["event"] != "fifty.vm.build.requested"]


def names(instance_id: str) -> list[str]:
    return [event["event"].removeprefix("fifty.vm.") for event in events_of(instance_id)]


def run_of(event: dict[str, Any]) -> str:
    """The flow run that an event is related to."""
    [run] = [
        related["prefect.resource.id"]
        for related in event["related"]
        if related["prefect.resource.role"] == "flow-run"
    ]
    return str(run).removeprefix("prefect.flow-run.")


@contextmanager
def receiver() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A web server on this machine; its URL, and what was posted to it."""
    got: list[dict[str, Any]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            got.append(json.loads(self.rfile.read(length)))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_words: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/vm", got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def webhook(site_cloud: Cloud, tmp_path: Path) -> Iterator[list[dict[str, Any]]]:
    """What the automation of the example posts; put up and taken down as its comments say."""
    del site_cloud
    with receiver() as (url, got):
        _env, block, fill_in, create, *take_down = examples.commands(NOTIFY)
        setup = "\n".join((block, fill_in, create))
        examples.type_in(setup, tmp_path, WEBHOOK_URL=url)
        yield got
        for line in take_down:
            examples.type_in(line, tmp_path)
    assert api("POST", "/automations/filter", json={}).json() == []
    assert "fifty-failures" not in api("POST", "/block_documents/filter", json={}).text


def test_runs_are_tagged_each_status_is_one_event_and_a_failure_calls_the_webhook(
    cloud: Cloud, webhook: list[dict[str, Any]]
) -> None:
    cloud.fifty("vm", "create", "told", *LIKE_THIS)
    told = cloud.instance("told")
    address = cloud.json("vm", "show", "told")["addresses"][0]["address"]
    cloud.fifty("vm", "create", "fails", *LIKE_THIS, fault="36:raise", code=1)
    fails = cloud.instance("fails")
    for instance in (told, fails):
        run = api("GET", f"/flow_runs/{instance.flow_run_id}").json()
        known = {"tenant:default", f"vm:{instance.name}", f"host:{cloud.world.store.host}"}
        assert known <= set(run["tags"])
    cloud.fifty("vm", "delete", "fails")
    cloud.fifty("vm", "delete", "told")

    whole = ["build", "active", "deleting", "deleted"]
    eventually(lambda: len(names(told.id)) >= len(whole), "all events of the VM")
    assert names(told.id) == whole
    broken = ["build", "error", "deleting", "deleted"]
    eventually(lambda: len(names(fails.id)) >= len(broken), "all events of the other VM")
    assert names(fails.id) == broken

    build, active, deleting, _deleted = events_of(told.id)
    assert build["payload"]["before"] is None
    assert active["payload"] == {
        "name": "told",
        "tenant": "default",
        "before": "BUILD",
        "status": "ACTIVE",
        "host": told.host,
        "flavor": "tiny",
        "image": "micro",
        "addresses": [address],
        "fault": None,
        "flow_run_id": told.flow_run_id,
    }
    assert run_of(build) == run_of(active) == told.flow_run_id
    assert run_of(deleting) not in ("", told.flow_run_id)

    error = events_of(fails.id)[1]["payload"]
    assert error["status"] == "ERROR"
    assert error["host"] == told.host
    assert error["fault"]["step"] == 36
    [call] = eventually(lambda: list(webhook), "call of the webhook")
    assert call["event"] == "fifty.vm.error"
    assert call["vm"] == error
    assert call["text"] == f"VM fails is ERROR: {error['fault']['message']}"

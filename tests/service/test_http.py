"""Fifty Steps driven by a plain HTTP client, as README's chapter "API" tells."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.cloud import Cloud
from tests.prefect_api import api
from tests.service.triggers import MICRO, artifacts, ended, fault, look, post, trigger
from tests.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.usefixtures("served")]

#: What is wrong, the run's parameters, and words that the answer must hold.
WRONG: tuple[tuple[str, dict[str, Any], list[str]], ...] = (
    ("an unknown parameter", {"request": {}, "requets": {}}, ["unknown parameter 'requets'"]),
    ("no request", {}, ["missing parameter 'request'"]),
    ("a request that is none", {"request": "hello"}, ["object with fields"]),
    (
        "nested fields",
        {"request": {**MICRO, "name": "wrong", "colour": "red", "size": {"of": "it"}}},
        ["colour", "size"],
    ),
    (
        "everything",
        {
            "request": {
                "name": "<wrong>",
                "image": "none",
                "flavor": "vast",
                "networks": ["nowhere"],
                "fixed_ip": "10.0.0.999",
                "volumes": [0],
                "security_groups": ["nobody"],
                "inject": [{"path": "relative", "content_base64": "!"}],
                "colour": "red",
            }
        },
        ["name", "none", "vast", "nowhere", "10.0.0.999", "volumes", "nobody", "inject", "colour"],
    ),
    (
        "somebody without credentials",
        {"request": {**MICRO, "name": "wrong", "credentials": "nobody"}},
        ["nobody"],
    ),
)


def vms(cloud: Cloud, name: str) -> list[str]:
    """The ids of the VMs of a name."""
    return [vm["id"] for vm in cloud.json("vm", "list") if vm["name"] == name]


def test_create_and_delete_a_vm_and_say_it_twice(cloud: Cloud) -> None:
    request = {**MICRO, "name": "posted", "request_id": str(uuid.uuid4())}
    key = str(uuid.uuid4())
    run = trigger("create-vm", request, idempotency_key=key)
    assert trigger("create-vm", request, idempotency_key=key) == run
    other = {**request, "flavor": "small"}
    refused = post("create-vm", {"request": other}, idempotency_key=key)
    assert refused.status_code == 409
    assert "request.flavor" in refused.json()["detail"]
    assert ended(run)["type"] == "COMPLETED"
    shown = cloud.json("vm", "show", "posted")
    assert (shown["status"], shown["flow_run_id"]) == ("ACTIVE", run)
    assert cloud.ssh("posted", "hostname").strip() == "posted"

    # The same request in another run: the same VM.
    again = trigger("create-vm", request)
    assert again != run
    assert ended(again)["message"] == "posted was there already"
    assert vms(cloud, "posted") == [shown["id"]]

    refused_resume = ended(trigger("resume-vm", {"name": "posted"}))
    assert refused_resume["name"] == "Refused"
    assert "there is nothing to go on with" in refused_resume["message"]

    assert ended(trigger("delete-vm", {"name": "posted"}))["type"] == "COMPLETED"
    assert vms(cloud, "posted") == []
    assert ended(trigger("delete-vm", {"name": shown["id"]}))["message"].endswith("already")


def test_resume_a_build_that_stopped(cloud: Cloud) -> None:
    request = {**MICRO, "name": "stopped", "on_failure": "keep"}
    run = trigger("create-vm", request, job_variables=fault("44:raise"))
    assert ended(run)["name"] == "Kept"
    resumed = trigger("resume-vm", {"name": "stopped"})
    assert ended(resumed)["type"] == "COMPLETED"
    assert cloud.json("vm", "show", "stopped")["status"] == "ACTIVE"
    unknown = trigger("resume-vm", {"name": "nobody-knows-it"})
    state = ended(unknown)
    assert state["name"] == "Refused"
    assert "nobody-knows-it" in state["message"]
    assert "nobody-knows-it" in artifacts(unknown)


def test_every_mistake_is_told_at_once_and_before_any_effect(cloud: Cloud) -> None:
    before = cloud.inventory()
    runs = [post("create-vm", parameters).json()["id"] for _what, parameters, _words in WRONG]
    for run, (what, _parameters, words) in zip(runs, WRONG, strict=True):
        state = ended(run)
        assert (state["type"], state["name"]) == ("FAILED", "Refused"), (what, state)
        shown = artifacts(run)
        for word in words:
            assert word in state["message"], (what, word)
            # An artifact is Markdown, in which some characters are written otherwise.
            assert word.replace("<", "").replace(">", "") in shown.replace("\\", ""), (what, word)
    assert cloud.inventory() == before
    assert vms(cloud, "wrong") == []


def test_a_name_that_two_requests_want_at_once_is_one_vm(cloud: Cloud) -> None:
    def create(_number: int) -> str:
        return trigger("create-vm", {**MICRO, "name": "wanted"})

    with ThreadPoolExecutor(2) as pool:
        states = [ended(run) for run in pool.map(create, range(2))]
    assert sorted(state["type"] for state in states) == ["COMPLETED", "FAILED"]
    [refused] = [state for state in states if state["type"] == "FAILED"]
    assert refused["message"].startswith("Conflict: ")
    assert "wanted" in refused["message"]
    assert len(vms(cloud, "wanted")) == 1
    assert cloud.json("vm", "show", "wanted")["status"] == "ACTIVE"


def test_a_cancelled_run_that_is_retried_is_built_anew(cloud: Cloud) -> None:
    run = trigger("create-vm", {**MICRO, "name": "again"})
    eventually(
        lambda: (
            vms(cloud, "again")
            and any(
                step["number"] == 46 and step["state"] == "done"
                for step in cloud.json("vm", "steps", "again")
            )
        ),
        "step 46",
    )
    cancel = {"state": {"type": "CANCELLING"}, "force": False}
    assert api("POST", f"/flow_runs/{run}/set_state", json=cancel).json()["status"] == "ACCEPT"
    state = ended(run)
    assert state["type"] == "CANCELLED"
    assert "mistake" not in state["message"], state["message"]
    assert cloud.json("vm", "show", "again")["status"] == "ERROR"

    retry = {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}, "force": False}
    answer = api("POST", f"/flow_runs/{run}/set_state", json=retry).json()
    assert answer["status"] == "ACCEPT", answer
    eventually(lambda: look(run)["state"]["type"] == "COMPLETED", "VM of the retried run")
    shown = cloud.json("vm", "show", "again")
    assert (shown["status"], shown["generation"], shown["flow_run_id"]) == ("ACTIVE", 2, run)

"""Work pool, queues and deployments on a real Prefect server, looked at over HTTP."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from blocks.settings import Settings
from deployments import served_flows
from deployments.registration import register
from deployments.served_flows import PREFECT_FILE, SERVED, Schedule, ServedFlow
from tests.prefect_api import api

pytestmark = pytest.mark.host

PROJECT = Path(__file__).resolve().parents[2]
HOST = "host-of-the-test"
#: What differs from one registration to the next.
_VOLATILE = ("id", "created", "updated", "created_by", "updated_by", "deployment_id")


def ask(method: str, path: str, **arguments: Any) -> Any:  # noqa: ANN401
    answer = api(method, path, **arguments)
    assert answer.ok, f"{answer.status_code}: {answer.text}"
    return answer.json() if answer.content else None


def deployment(name: str) -> dict[str, Any]:
    """A deployment without what is another one's each time."""
    found: dict[str, Any] = ask("GET", f"/deployments/name/{name}/fifty")
    for part in (found, found["global_concurrency_limit"] or {}, *found["schedules"]):
        for field in _VOLATILE:
            part.pop(field, None)
    for one in found["schedules"]:
        one["schedule"].pop("anchor_date", None)
    # Named by the deployment's id.
    (found["global_concurrency_limit"] or {}).pop("name", None)
    found["schedules"].sort(key=lambda one: one["slug"] or "~")
    return found


def deployments() -> dict[str, dict[str, Any]]:
    return {served.name: deployment(served.name) for served in SERVED}


def settings(**more: Any) -> Settings:  # noqa: ANN401
    return Settings(_env_file=None, host=HOST, **more)


@pytest.fixture
def registered(prefect_server: str) -> str:
    """A server that knows our deployments."""
    register(settings())
    return prefect_server


def test_what_is_registered_is_there_and_registering_again_changes_nothing(
    registered: str,
) -> None:
    found = deployments()
    assert {one["work_pool_name"] for one in found.values()} == {"fifty"}
    for served in SERVED:
        one = found[served.name]
        assert (one["work_queue_name"], one["entrypoint"]) == (served.queue, served.entrypoint)
        assert one["enforce_parameter_schema"] is False
        assert one["description"] == served.load().description
        assert [s["active"] for s in one["schedules"]] == ([True] if served.schedule else [])
    queues = {q["name"]: q for q in ask("POST", "/work_pools/fifty/queues/filter", json={})}
    assert set(queues) >= {"builds", "default", HOST}
    assert queues["builds"]["concurrency_limit"] == 4
    assert queues["default"]["concurrency_limit"] is None
    assert ask("GET", "/work_pools/fifty")["type"] == "fifty"
    before = deployments()
    assert register(settings()) == []
    assert deployments() == before


def test_prefect_deploy_makes_the_same_deployments(registered: str) -> None:
    before = deployments()
    for served in SERVED:
        found = ask("GET", f"/deployments/name/{served.name}/fifty")
        ask("DELETE", f"/deployments/{found['id']}")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"),
            *("--prefect-file", str(PREFECT_FILE.relative_to(PROJECT))),
        ],
        cwd=PROJECT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert deployments() == before
    assert register(settings()) == []


def test_what_an_operator_changed_stays(registered: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ServedFlow("delete-image", "default", ("image",), Schedule(every_s=3600), alone=True)
    monkeypatch.setattr("deployments.registration.SERVED", (first,))
    assert register(settings()) == ["deployment delete-image/fifty: brought up to date"]
    found = ask("GET", "/deployments/name/delete-image/fifty")
    assert found["schedules"][0]["schedule"]["interval"] == 3600
    assert found["global_concurrency_limit"]["limit"] == 1
    assert found["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    schedules = f"/deployments/{found['id']}/schedules"
    ask("PATCH", f"{schedules}/{found['schedules'][0]['id']}", json={"active": False})
    own = {"schedule": {"cron": "0 4 * * *", "timezone": "UTC"}, "active": True}
    ask("POST", schedules, json=[own])
    queue = ask("GET", "/work_pools/fifty/queues/builds")
    ask("PATCH", f"/work_queues/{queue['id']}", json={"concurrency_limit": 9})
    assert register(settings()) == []
    assert deployment("delete-image")["schedules"][0]["active"] is False

    # A newer version of ours: another interval.
    newer = ServedFlow("delete-image", "default", ("image",), Schedule(every_s=1800))
    monkeypatch.setattr("deployments.registration.SERVED", (newer,))
    register(settings())
    found = deployment("delete-image")
    ours, theirs = found["schedules"]
    assert (ours["schedule"]["interval"], ours["active"]) == (1800, False)
    assert theirs["schedule"]["cron"] == "0 4 * * *"
    assert found["global_concurrency_limit"] is None
    assert ask("GET", "/work_pools/fifty/queues/builds")["concurrency_limit"] == 9
    # The setting, where it is made, has the last word.
    assert register(settings(builds=2)) == ["work queue builds: 2 at a time, by FIFTY_BUILDS"]
    assert ask("GET", "/work_pools/fifty/queues/builds")["concurrency_limit"] == 2

    # And one that has no schedule any more.
    monkeypatch.setattr("deployments.registration.SERVED", served_flows.SERVED)
    register(settings(builds=4))
    assert [one["slug"] for one in deployment("delete-image")["schedules"]] == [None]
    [left] = ask("GET", "/deployments/name/delete-image/fifty")["schedules"]
    ask("DELETE", f"{schedules}/{left['id']}")

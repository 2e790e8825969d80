"""Flow runs as a plain HTTP client makes and follows them: what README documents, in Python."""

from __future__ import annotations

import time
import uuid
from typing import Any

import requests

from tests.prefect_api import api
from tests.waiting import eventually

MICRO = {"image": "micro", "flavor": "tiny", "networks": ["lab"], "key": "default"}
_ENDS = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def post(flow: str, parameters: Any, **more: Any) -> requests.Response:  # noqa: ANN401
    """Trigger a flow; a busy server (503) is asked again, which its idempotency key allows.

    Args:
        flow: Its name.
        parameters: The run's parameters.
        more: Other fields of the request: `idempotency_key` (by default a new one),
            `job_variables`.
    """
    body = {"idempotency_key": str(uuid.uuid4()), "parameters": parameters, **more}
    while True:
        deployment = api("GET", f"/deployments/name/{flow}/fifty")
        if deployment.status_code == 200:
            path = f"/deployments/{deployment.json()['id']}/create_flow_run"
            answer = api("POST", path, json=body)
            if answer.status_code != 503:
                return answer
        assert deployment.status_code in (200, 503), deployment.text
        time.sleep(1)


def trigger(flow: str, request: Any, **more: Any) -> str:  # noqa: ANN401
    """Trigger a flow with its parameter `request`; the run's id."""
    answer = post(flow, {"request": request}, **more)
    assert answer.status_code in (200, 201), answer.text
    return str(answer.json()["id"])


def look(run: str) -> dict[str, Any]:
    """A flow run as it is now."""
    answer = api("GET", f"/flow_runs/{run}")
    return dict(answer.json()) if answer.ok else {"state": {"type": "", "name": "busy"}}


def ended(run: str) -> dict[str, Any]:
    """The state of a run, once it has ended."""

    def end() -> dict[str, Any]:
        state = look(run)["state"]
        return dict(state) if state["type"] in _ENDS else {}

    return eventually(end, f"end of the run {run}")


def artifacts(run: str) -> str:
    """The texts of a run's artifacts."""
    found = api("POST", "/artifacts/filter", json={"artifacts": {"flow_run_id": {"any_": [run]}}})
    return "\n".join(str(artifact["data"]) for artifact in found.json())


def fault(what: str) -> dict[str, Any]:
    """Job variables that break a run on purpose."""
    return {"env": {"FIFTY_FAULT": what}}

"""A running `fifty serve`, as the tests of this directory use it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import requests

from deployments.service import record
from tests.cloud import Cloud
from tests.prefect_api import api
from tests.waiting import eventually

_STOP_S = 300
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def ask(method: str, path: str, **arguments: Any) -> Any:  # noqa: ANN401 - any JSON
    """What the API answers; asked again where a busy SQLite server says 503."""

    def answer() -> requests.Response | None:
        found = api(method, path, **arguments)
        return None if found.status_code == HTTPStatus.SERVICE_UNAVAILABLE else found

    found = eventually(answer, f"answer to {method} {path}")
    assert found is not None
    assert found.ok, f"{method} {path}: {found.status_code} {found.text}"
    return found.json()


def children(pid: int) -> list[int]:
    """The pids of a process's children, zombies too."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in listed.split()]


class Served:
    """`fifty serve` on the site of the tests, and Prefect's API as a plain client uses it.

    Args:
        cloud: The site.
        log: Where the service's output goes.
    """

    def __init__(self, cloud: Cloud, log: Path) -> None:
        self.cloud = cloud
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The service's process."""
        assert self._process is not None
        return self._process.pid

    @property
    def forkserver(self) -> int:
        """The process that its runs are forked from."""
        [pid] = children(self.pid)
        return pid

    def start(self, **variables: str) -> None:
        """Start it, and wait until it takes runs."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [str(Path(sys.executable).with_name("fifty")), "serve"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **variables},
                start_new_session=True,
            )
        eventually(self._is_ready, "ready service")

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        serving = record.running(self.cloud.home)
        return serving is not None and serving.process.pid == self.pid and serving.ready is not None

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send it a signal and wait for its end; its exit code."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(number)
        return self._process.wait(_STOP_S)

    def post(
        self,
        deployment: str,
        request: Mapping[str, Any] | None = None,
        *,
        fault: str = "",
        key: str | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> str:
        """Make a flow run of a deployment; its id.

        Args:
            deployment: Its name, without `/fifty`.
            request: The parameter `request`.
            fault: FIFTY_FAULT, for this run only.
            key: The idempotency key; one of its own where none is given.
            parameters: All parameters, in place of `request`.
        """
        found = ask("GET", f"/deployments/name/{deployment}/fifty")
        body: dict[str, Any] = {
            "parameters": parameters if parameters is not None else {"request": request},
            "idempotency_key": key or str(uuid.uuid4()),
        }
        if fault:
            body["job_variables"] = {"env": {"FIFTY_FAULT": fault}}
        return str(ask("POST", f"/deployments/{found['id']}/create_flow_run", json=body)["id"])

    def run(self, flow_run_id: str) -> dict[str, Any]:
        """A flow run as Prefect has it."""
        found: dict[str, Any] = ask("GET", f"/flow_runs/{flow_run_id}")
        return found

    def states(self, flow_run_id: str) -> list[dict[str, Any]]:
        """All states that a flow run had, in order."""
        found = ask("GET", "/flow_run_states/", params={"flow_run_id": flow_run_id})
        return sorted(found, key=lambda state: str(state["timestamp"]))

    def wait_for(self, flow_run_id: str, *names: str) -> dict[str, Any]:
        """Wait until a flow run is in one of these states; the run."""

        def there() -> dict[str, Any] | None:
            run = self.run(flow_run_id)
            if run["state"]["name"] in names:
                return run
            assert run["state"]["type"] not in FINAL, f"{run['name']}: {run['state']}"
            return None

        return eventually(there, f"state {' or '.join(names)} of {flow_run_id}") or {}

    def end_of(self, flow_run_id: str) -> dict[str, Any]:
        """Wait until a flow run has ended, however; its last state."""

        def state() -> dict[str, Any] | None:
            found: dict[str, Any] = self.run(flow_run_id)["state"]
            return found if found["type"] in FINAL else None

        return eventually(state, f"end of {flow_run_id}") or {}

    def create(self, name: str, *, fault: str = "", **fields: object) -> str:
        """Post a request for a small VM; the flow run's id."""
        request = {
            "name": name,
            "image": "micro",
            "flavor": "tiny",
            "networks": ["lab"],
            "key": "default",
        }
        return self.post("create-vm", {**request, **fields}, fault=fault)

    def cancel(self, flow_run_id: str) -> None:
        """What the UI's Cancel does."""
        state = {"type": "CANCELLING", "name": "Cancelling"}
        ask("POST", f"/flow_runs/{flow_run_id}/set_state", json={"state": state})

    def process_of(self, flow_run_id: str) -> int:
        """The pid of a flow run's process, as it is recorded."""
        recorded = eventually(
            lambda: self.run(flow_run_id)["infrastructure_pid"], f"process of {flow_run_id}"
        )
        return int(str(recorded).rsplit(":", 3)[1])

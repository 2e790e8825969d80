"""Flows called as their code is, in a process of their own, against the site."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from tests.prefect_api import api

_SCRIPT = """
import importlib, json, sys
from deployments.cli.flow_runs import connect
connect()
name, arguments = sys.argv[1], json.loads(sys.argv[2])
state = getattr(importlib.import_module(f"flows.{name}"), name)(*arguments, return_state=True)
run = str(state.state_details.flow_run_id)
print(json.dumps({"id": run, "type": state.type, "name": state.name, "message": state.message}))
"""


@dataclass(frozen=True)
class Ended:
    """A flow run that has ended."""

    id: str
    type: str
    name: str
    message: str

    def artifact(self, key: str) -> dict[str, Any]:
        """The artifact of this key that the run wrote."""
        document = {"artifacts": {"flow_run_id": {"any_": [self.id]}, "key": {"any_": [key]}}}
        [found] = api("POST", "/artifacts/filter", json=document).json()
        return dict(found)

    def rows(self, key: str) -> list[dict[str, Any]]:
        """The rows of a table artifact that the run wrote."""
        return list(json.loads(self.artifact(key)["data"]))


def call(flow: str, *arguments: object, fault: str = "") -> Ended:
    """Run `flows.FLOW.FLOW` to its end.

    Args:
        flow: The flow's module and function.
        arguments: Its parameters.
        fault: FIFTY_FAULT.
    """
    done = attempt(flow, *arguments, fault=fault)
    assert done.returncode == 0, done.stderr
    return Ended(**json.loads(done.stdout.splitlines()[-1]))


def attempt(flow: str, *arguments: object, fault: str = "") -> subprocess.CompletedProcess[str]:
    """Run it, whatever becomes of the process."""
    return subprocess.run(
        [sys.executable, "-c", _SCRIPT, flow, json.dumps(arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "FIFTY_FAULT": fault} if fault else dict(os.environ),
        stdin=subprocess.DEVNULL,
        timeout=600,
        check=False,
    )

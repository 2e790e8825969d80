"""`faulty`: a service whose schedules are off; and the matrix's table, at the end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cloud import Cloud
from tests.matrix.cases import chosen
from tests.matrix.ends import Ends
from tests.matrix.table import TABLE, Table
from tests.service.served import Served, ask
from tests.waiting import eventually

#: What a scheduled reconcile hands stopped builds to.
FINISHES = "flows.finish_build.finish_build"
#: More than a step has cases: they all run at once.
AT_A_TIME = "8"


@pytest.fixture
def table() -> Table:
    """The table that is printed at the session's end."""
    return TABLE


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table."""
    lines = TABLE.lines(chosen()[1])
    if lines:
        terminalreporter.section("fault matrix")
    for line in lines:
        terminalreporter.write_line(line)


class Faulty(Served):
    """The service, asked about many runs at once."""

    def __init__(self, cloud: Cloud, log: Path) -> None:
        super().__init__(cloud, log)
        self._ends = Ends()

    def end_of(self, flow_run_id: str) -> dict[str, Any]:
        """Wait until a flow run has ended, however; its last state."""
        return self._ends.of(flow_run_id)


@pytest.fixture(scope="package")
def faulty(site_cloud: Cloud, session_directory: Path) -> Iterator[Served]:
    """The service without its schedules: nobody is to help a build that was stopped."""
    served = Faulty(site_cloud, session_directory / "faulty.log")
    served.start(FIFTY_BUILDS=AT_A_TIME)
    deployments = ask("POST", "/deployments/filter", json={})
    scheduled = [one["id"] for one in deployments if one["schedules"] and not one["paused"]]
    helping = [one["id"] for one in deployments if one["name"] == "fifty" and one["schedules"]]
    helping += [one["id"] for one in deployments if one["entrypoint"] == FINISHES]
    try:
        for deployment in scheduled:
            ask("POST", f"/deployments/{deployment}/pause_deployment")
        eventually(lambda: not _under_way(helping), "end of what the schedules began")
        yield served
        for deployment in scheduled:
            ask("POST", f"/deployments/{deployment}/resume_deployment")
    finally:
        code = served.stop(signal.SIGTERM)
    assert code == 0, served.log.read_text()


def _under_way(deployments: list[str]) -> list[dict[str, Any]]:
    """The runs of these deployments that run, or are about to."""
    state = {"type": {"any_": ["SCHEDULED", "PENDING", "RUNNING", "CANCELLING"]}}
    question = {
        "flow_runs": {"state": state},
        "deployments": {"id": {"any_": deployments}},
    }
    found: list[dict[str, Any]] = ask("POST", "/flow_runs/filter", json=question)
    return found

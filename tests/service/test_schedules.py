"""A user's own job, on a schedule that really fires: the example, with seconds for a night."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cloud import Cloud
from tests.prefect_api import api
from tests.service import examples
from tests.service.flow_runs import call
from tests.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

NIGHTLY = "nightly.yaml"
NIGHT_S = 20


def runs() -> list[dict[str, Any]]:
    """The runs of the example's deployment."""
    document = {"deployments": {"name": {"any_": ["nightly"]}}, "sort": "START_TIME_ASC"}
    return list(api("POST", "/flow_runs/filter", json=document).json())


def children(run: str) -> list[str]:
    """The flows that a run has called, in order."""
    document = {
        "flow_runs": {"parent_flow_run_id": {"any_": [run]}},
        "sort": "EXPECTED_START_TIME_ASC",
    }
    return [found["name"] for found in api("POST", "/flow_runs/filter", json=document).json()]


def vms(cloud: Cloud) -> list[str]:
    """The VMs that there are of these jobs."""
    names = [vm["name"] for vm in cloud.json("vm", "list")]
    return [name for name in names if name.startswith(("nightly", "job"))]


@pytest.fixture
def nightly(cloud: Cloud, tmp_path: Path) -> Iterator[None]:
    """The example, deployed and taken away as its comments say; a night is some seconds."""
    text = (examples.EXAMPLES / NIGHTLY).read_text()
    copy = re.sub(r'cron: ".*"\n +timezone: UTC', f"interval: {NIGHT_S}", text)
    assert copy != text
    (tmp_path / NIGHTLY).write_text(copy)
    _env, deploy, take_away = examples.commands(NIGHTLY)
    examples.type_in(deploy, tmp_path)
    yield
    examples.type_in(take_away, tmp_path)
    eventually(lambda: not vms(cloud), "end of its VMs")


@pytest.mark.usefixtures("served", "nightly")
def test_a_schedule_fires_and_leaves_the_guests_output_and_no_vm(cloud: Cloud) -> None:
    def over() -> list[dict[str, Any]]:
        return [run for run in runs() if run["state_type"] in ("COMPLETED", "FAILED", "CRASHED")]

    [run, *_more] = eventually(over, "run that the schedule made, and that is over")
    assert run["state_type"] == "COMPLETED", run["state"]["message"]
    assert run["auto_scheduled"]
    assert run["created_by"]["type"] == "SCHEDULE"
    assert "ended with 0" in run["state"]["message"]
    assert "nightly" in run["tags"]
    name = f"nightly-{run['id'].replace('-', '')[:8]}"
    assert children(run["id"])[0] == f"create-vm {name}"
    assert len(children(run["id"])) == 2

    document = {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}}
    [artifact] = api("POST", "/artifacts/filter", json=document).json()
    assert artifact["key"] == "nightly-output"
    assert f"# {name}: exit code 0" in artifact["data"]
    assert re.search(rf"this is {name}, up for \d+ s\nFilesystem .* Mounted on", artifact["data"])
    assert name not in vms(cloud)
    [gone] = [vm for vm in cloud.json("vm", "list", "--deleted") if vm["name"] == name]
    assert gone["status"] == "DELETED"


def job(command: str | list[str], **more: Any) -> dict[str, Any]:  # noqa: ANN401
    request = yaml.safe_load((examples.EXAMPLES / NIGHTLY).read_text())
    [example] = request["deployments"]
    return {**example["parameters"]["request"], "name": "job", "command": command, **more}


def test_a_command_that_fails_fails_the_run_and_its_vm_is_deleted_all_the_same(
    cloud: Cloud,
) -> None:
    command = ["sh", "-c", "echo $0; echo 'to `stderr`' >&2; exit 7", "-oProxyCommand=$(id) ```"]
    ended = call("run_in_vm", job(command))
    assert (ended.type, ended.name) == ("FAILED", "CommandFailed")
    assert ended.message == "the command ended with 7: to `stderr`"
    # Its words came to the guest as they are, and what it said is all inside of the block.
    data = ended.artifact("job-output")["data"]
    assert data.endswith("````text\n-oProxyCommand=$(id) ```\nto `stderr`\n````")
    assert vms(cloud) == []


def test_a_job_whose_vm_cannot_be_made_says_so_and_leaves_nothing(cloud: Cloud) -> None:
    ended = call("run_in_vm", job("true"), fault="36:raise")
    assert (ended.type, ended.name) == ("FAILED", "NoVm")
    assert vms(cloud) == []
    wrong = call("run_in_vm", job("", timeout_s=0, name="UPPER", networks=[]))
    assert (wrong.type, wrong.name) == ("FAILED", "Refused")
    for field in ("command", "timeout_s", "name", "networks"):
        assert field in wrong.message

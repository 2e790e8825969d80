"""What is secret is nowhere but where it is kept: canaries are planted, and looked for.

Tokens and passwords reach the flows as names of Prefect blocks. After builds that succeed,
that are refused and that fail, neither Prefect's database nor its log, neither the state
store nor any checkpoint holds one of the values: not as it is, and not as base64.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from prefect.blocks.system import Secret

from tests.cloud import Cloud
from tests.prefect_api import api, password
from tests.service.triggers import MICRO, ended, fault, trigger
from tests.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.usefixtures("served")]

NAME = "canary"


@pytest.fixture(name="canaries", scope="module")
def _canaries(site_cloud: Cloud) -> dict[str, bytes]:
    """Secret things by what they are; each is used by the runs of the test."""
    site_cloud.fifty("tenant", "token", "default", "--role", "member", "--save", NAME)
    site_cloud.fifty("key", "create", NAME)
    user_data = f"#!/bin/sh\necho {uuid.uuid4()} > /root/{NAME}\n"
    Secret(value=user_data).save(f"{NAME}-user-data", overwrite=True)
    key = (site_cloud.home / "keys" / NAME).read_text().splitlines()
    assert "PRIVATE KEY" in key[0]
    blocks = api("POST", "/block_documents/filter", json={"include_secrets": True}).json()
    tokens = {
        f"token of {block['name']}": block["data"]["token"].encode()
        for block in blocks
        if block["block_type"]["slug"] == "fifty-credentials"
        # Others are of other tests, which have their reasons for what they hold.
        and block["name"] in ("default", NAME)
    }
    assert len(tokens) == 2
    return {
        **tokens,
        "password": password()[1].encode(),
        "private key": key[-3].encode(),
        "user data": user_data.split()[2].encode(),
    }


def forms(secret: bytes) -> list[bytes]:
    """A secret as it is, and as it looks inside of base64, wherever it begins there."""
    found = [secret]
    for before in range(3):
        whole = base64.b64encode(b"\0" * before + secret)
        # The characters at both ends also depend on what stands beside the secret.
        found.append(whole[(before * 8 + 5) // 6 : len(whole) // 4 * 4 - 4])
    return found


def files(home: Path) -> list[Path]:
    """All that is written about runs."""
    kept = [home / "prefect" / "password"]
    roots = [home / "prefect", home / "logs", home / "checkpoints"]
    found = [file for root in roots for file in root.rglob("*") if file.is_file()]
    return [file for file in [*found, *home.glob("state.db*")] if file not in kept]


#: In a process of its own: who closes a file that SQLite has open in the same process takes
#: SQLite's locks away (https://sqlite.org/howtocorrupt.html, 2.2).
_SEARCH = """
import json, sys
wanted = [bytes.fromhex(form) for form in json.loads(sys.stdin.readline())]
for name in sys.stdin.read().splitlines():
    try:
        content = open(name, "rb").read()
    except FileNotFoundError:
        continue  # a file of SQLite's, which comes and goes
    if any(form in content for form in wanted):
        print(name)
"""


def holders(home: Path, secret: bytes) -> list[str]:
    """The files that hold a secret."""
    wanted = json.dumps([form.hex() for form in forms(secret)])
    names = "\n".join(str(file) for file in files(home))
    done = subprocess.run(
        [sys.executable, "-c", _SEARCH],
        input=f"{wanted}\n{names}\n",
        capture_output=True,
        text=True,
        check=True,
    )
    return [str(Path(name).relative_to(home)) for name in done.stdout.splitlines()]


def test_no_secret_is_written_where_runs_are_told_of(
    cloud: Cloud, canaries: dict[str, bytes]
) -> None:
    request = {
        **MICRO,
        "name": NAME,
        "key": NAME,
        "credentials": NAME,
        "user_data_secret": f"{NAME}-user-data",
    }
    assert ended(trigger("create-vm", request))["type"] == "COMPLETED"
    # It has reached the guest's config drive, where it belongs.
    directory = cloud.home / "instances" / cloud.instance(NAME).id
    assert any(canaries["user data"] in file.read_bytes() for file in directory.glob("*.iso"))
    fails = {**request, "name": "fails"}
    refused = trigger("create-vm", {**request, "flavor": "vast", "colour": "red"})
    undone = trigger("create-vm", fails, job_variables=fault("44:raise:after"))
    assert [ended(run)["name"] for run in (refused, undone)] == ["Refused", "RolledBack"]
    last = trigger("delete-vm", {"name": NAME, "credentials": NAME})
    assert ended(last)["name"] == "Completed"

    def all_told() -> bool:
        happened = api(
            "POST",
            "/events/filter",
            json={"filter": {"any_resource": {"id": [f"prefect.flow-run.{last}"]}}},
        ).json()["events"]
        return any(event["event"] == "prefect.flow-run.Completed" for event in happened)

    eventually(all_told, "event of the last run's end")
    # The search finds what is there: a name, and what the flavor's refusal says.
    assert {"prefect/prefect.db", "state.db"} <= {
        name.removesuffix("-wal") for name in holders(cloud.home, b"fails")
    }
    leaks = {what: holders(cloud.home, secret) for what, secret in canaries.items()}
    assert {what: where for what, where in leaks.items() if where} == {}


def test_the_search_knows_base64() -> None:
    secret = os.urandom(24).hex().encode()
    for before in (b"", b"x", b"xy", b"xyz"):
        text = base64.b64encode(before + secret + b" and more")
        assert any(form in text for form in forms(secret)), before

"""`fifty init`, and a request that is refused, against a real Prefect server."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

from blocks.state import StateStore
from deployments import daemons
from tests import sessions

pytestmark = pytest.mark.host

ROOT = Path(__file__).resolve().parent.parent.parent


def _fifty(home: Path, *words: str, code: int = 0, **variables: str) -> Any:  # noqa: ANN401
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("FIFTY", "PREFECT"))}
    done = subprocess.run(
        [sys.executable, "-m", "deployments.cli", *words, "--json"],
        cwd=ROOT,
        env={**environment, "FIFTY_HOME": str(home), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout)


@pytest.fixture(name="home", scope="module")
def _home(session_directory: Path, prefect_server: str) -> Path:
    home = session_directory / "cli-init"
    daemons.prepare_home(home)
    made = _fifty(home, "init", "--api-url", prefect_server)
    sessions.note_site(session_directory, made["site"])
    return home


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_there_after_init(home: Path, prefect_server: str) -> None:
    assert {_mode(home / name) for name in ("images", "instances", "networks", "volumes")} == {
        0o711
    }
    assert {_mode(home / name) for name in ("keys", "checkpoints")} == {0o700}
    assert _mode(home / "keys" / "default") == _mode(home / "state.db") == 0o600
    store = StateStore(home / "state.db", "here")
    tenant = store.tenants.id_of("default")
    assert [flavor.name for flavor in store.flavors.list()] == ["tiny", "small", "medium"]
    assert [group.name for group in store.groups.list(tenant)] == ["default"]
    public, private = store.keys.get(tenant, "default")
    derived = subprocess.run(
        ["ssh-keygen", "-y", "-f", str(private)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert derived.stdout.split()[:2] == public.split()[:2]
    # The server says so itself: a rate limit, and the three blocks.
    name = "fifty-requests-default"
    limit = requests.get(f"{prefect_server}/v2/concurrency_limits/{name}", timeout=30).json()
    assert (limit["limit"], limit["slot_decay_per_second"]) == (120, 2.0)
    found = requests.post(f"{prefect_server}/block_documents/filter", json={}, timeout=30).json()
    kinds = {(block["block_type"]["slug"], block["name"]) for block in found}
    assert kinds >= {
        ("fifty-credentials", "default"),
        ("fifty-libvirt-host", "local"),
        ("fifty-scheduler", "local"),
    }
    steps = json.loads((home / "catalogue.json").read_text())["vm"]
    assert [step["number"] for step in steps] == list(range(1, 51))


def test_init_again_changes_nothing(home: Path) -> None:
    before = (home / "keys" / "default").read_bytes()
    # No URL this time: it is remembered.
    again = _fifty(home, "init")
    assert again["made"] == []
    assert (home / "keys" / "default").read_bytes() == before


def test_a_request_that_is_wrong_is_refused_with_all_its_errors(home: Path) -> None:
    words = ["vm", "create", "he<llo", "--image", "none", "--network", "nowhere"]
    words += ["--flavor", "vast", "--fixed-ip", "10.0.0.999", "--volume", "0"]
    refusal = _fifty(home, *words, "--security-group", "nobody", code=1)
    told = " ".join(refusal["details"])
    for word in ("name", "none", "nowhere", "vast", "10.0.0.999", "volumes", "nobody"):
        assert word in told, word
    assert refusal["build_state"] == "refused"
    assert refusal["undone"] == refusal["left"] == []
    # No VM, but the steps of what was asked for.
    assert _fifty(home, "vm", "list") == []
    assert _fifty(home, "vm", "show", "he<llo", code=1)["error"] == "NotFound"
    steps = _fifty(home, "vm", "steps", refusal["build_id"])
    assert steps[8]["state"] == "pending"
    assert steps[3]["error"]["error"] == "InvalidRequest"


def test_detached_without_a_deployment(home: Path) -> None:
    words = ["vm", "create", "hello", "--image", "i", "--network", "n", "--detach"]
    assert "no deployment 'create-vm/fifty'" in _fifty(home, *words, code=1)["message"]


def test_what_is_not_there_cannot_be_changed(home: Path) -> None:
    for words in (
        ["vm", "delete", "nobody"],
        ["vm", "resume", "nobody"],
        ["network", "delete", "nothing"],
        ["router", "delete", "nothing"],
        ["image", "delete", "nothing"],
    ):
        assert _fifty(home, *words, code=1)["error"] == "NotFound", words


def test_an_audit_of_an_empty_site(home: Path, libvirtd: str) -> None:
    assert _fifty(home, "audit")["clean"] is True


def test_a_server_that_is_gone(home: Path) -> None:
    words = ["vm", "create", "hello", "--image", "i", "--network", "n"]
    refusal = _fifty(home, *words, code=1, PREFECT_API_URL="http://127.0.0.1:1/api")
    assert refusal["error"] == "Transient"
    assert "does not answer" in refusal["message"]

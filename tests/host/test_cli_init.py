"""`fifty init`, and a request that is refused, against a real Prefect server."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import stat
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from blocks.state import StateStore
from deployments import daemons
from tests import sessions
from tests.prefect_api import api

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
    auth = os.environ["PREFECT_API_AUTH_STRING"]
    made = _fifty(home, "init", "--api-url", prefect_server, FIFTY_PREFECT_AUTH=auth)
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
    limit = api("GET", f"/v2/concurrency_limits/{name}").json()
    assert (limit["limit"], limit["slot_decay_per_second"]) == (120, 2.0)
    found = api("POST", "/block_documents/filter", json={}).json()
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
    # No URL and no password this time: they are remembered.
    again = _fifty(home, "init")
    assert again["made"] == []
    assert (home / "keys" / "default").read_bytes() == before


def test_the_password_is_kept_for_root_alone_and_told_for_a_shell(home: Path) -> None:
    assert _mode(home / "fifty.env") == 0o600
    script = 'eval "$(fifty env)"; curl -sf -u "$PREFECT_API_AUTH_STRING" "$PREFECT_API_URL$0"'
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT")}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-c", script, "/admin/version"],
        env={**environment, "FIFTY_HOME": str(home), "PATH": path},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert json.loads(done.stdout) == importlib.metadata.version("prefect")
    assert set(_fifty(home, "env")) >= {"PREFECT_API_URL", "PREFECT_API_AUTH_STRING"}


@pytest.mark.parametrize("kind", ["wrong", "missing"])
def test_a_password_that_is_not_right_is_told_in_one_line(
    home: Path, session_directory: Path, kind: str
) -> None:
    other = session_directory / f"auth-{kind}"
    shutil.copytree(home, other)
    lines = (home / "fifty.env").read_text().splitlines()
    without = [line for line in lines if not line.startswith("FIFTY_PREFECT_AUTH=")]
    assert len(without) == len(lines) - 1
    more = ["FIFTY_PREFECT_AUTH=fifty:wrong"] if kind == "wrong" else []
    (other / "fifty.env").write_text("\n".join([*without, *more]) + "\n")
    for words in (
        ["init"],
        ["audit"],
        ["vm", "create", "x", "--image", "i", "--network", "n"],
        ["vm", "create", "x", "--image", "i", "--network", "n", "--detach"],
        ["network", "delete", "nothing"],
        ["image", "build", "micro"],
    ):
        refusal = _fifty(other, *words, code=1)
        assert refusal["error"] == "Denied", words
        assert f"wants {'another' if kind == 'wrong' else 'a'} password" in refusal["message"]
        assert "FIFTY_PREFECT_AUTH" in refusal["hint"]


def test_a_password_goes_to_no_other_server(home: Path) -> None:
    """The one that is kept is for the server it was kept with."""
    asked: list[str | None] = []

    class Curious(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers["Authorization"])
            self.send_response(500)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Curious)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/api"
        refusal = _fifty(home, "init", "--api-url", url, code=1)
    finally:
        server.shutdown()
        server.server_close()
    assert refusal["error"] == "Transient"
    assert asked
    assert set(asked) == {None}


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
    there = api("GET", "/deployments/name/create-vm/fifty").json()
    api("DELETE", f"/deployments/{there['id']}")
    words = ["vm", "create", "hello", "--image", "i", "--network", "n", "--detach"]
    assert "no deployment 'create-vm/fifty'" in _fifty(home, *words, code=1)["message"]
    # `fifty init` makes it, and then the run waits for somebody who serves.
    assert _fifty(home, "init")["made"] == ["deployment create-vm/fifty"]
    sent = _fifty(home, *words)
    state = api("GET", f"/flow_runs/{sent['flow_run_id']}").json()["state"]
    assert state["type"] == "SCHEDULED"
    api("DELETE", f"/flow_runs/{sent['flow_run_id']}")


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

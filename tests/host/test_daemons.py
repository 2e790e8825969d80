"""The daemons: started, found again, and stopped, exactly those that are ours."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from blocks.errors import HostFault
from deployments import daemons, libvirt_daemons, prefect_server, processes
from tests.prefect_api import api, password

pytestmark = pytest.mark.host


def test_prefect_server_is_silent_and_keeps_its_files_in_our_home(
    prefect_server: str, fifty_home: Path
) -> None:
    settings = api("GET", "/admin/settings").json()
    assert settings["home"] == str(fifty_home / "prefect")
    assert settings["server"]["analytics_enabled"] is False
    assert settings["server"]["ephemeral"]["enabled"] is False
    assert settings["server"]["ui"]["show_promotional_content"] is False
    assert settings["server"]["services"]["task_run_recorder"]["batch_size"] == 100
    assert settings["flows"]["heartbeat_frequency"] == 30
    assert (fifty_home / "prefect" / "prefect.db").stat().st_size > 0
    ui = requests.get(prefect_server.replace("/api", "/ui-settings"), timeout=60).json()
    assert (ui["api_url"], ui["auth"]) == (prefect_server, "BASIC")


def test_the_server_answers_nobody_without_its_password(
    prefect_server: str, fifty_home: Path
) -> None:
    user, secret = password()
    wrong: tuple[tuple[str, str] | None, ...] = (None, (user, ""), (user, "x"), ("x", secret))
    for auth in (*wrong, (user, secret + "x")):
        assert api("POST", "/deployments/filter", json={}, auth=auth).status_code == 401, auth
    for header in ("Basic", "Basic !", f"Bearer {secret}", "Basic " + "A" * 100_000):
        answer = requests.get(
            f"{prefect_server}/admin/version", headers={"Authorization": header}, timeout=60
        )
        assert answer.status_code in (400, 401), header
    assert api("GET", "/admin/version").status_code == 200
    # Who watches over the server needs none.
    assert api("GET", "/health", auth=None).json() is True


def test_the_password_is_in_files_of_roots_only(prefect_server: str, fifty_home: Path) -> None:
    _user, secret = password()
    assert len(secret) >= 32
    server = prefect_server_of(fifty_home)
    kept = fifty_home / "prefect" / "password"
    assert kept.read_text().strip() == os.environ["PREFECT_API_AUTH_STRING"]
    assert kept.stat().st_mode & 0o777 == 0o600
    assert kept.parent.stat().st_mode & 0o777 == 0o700
    lines = [file.read_bytes() for file in Path("/proc").glob("[0-9]*/cmdline")]
    assert any(str(server.port).encode() in line for line in lines)
    assert not any(secret.encode() in line for line in lines)
    log = (fifty_home / "logs" / "prefect-server.log").read_text()
    assert secret not in log
    base = prefect_server.removesuffix("/api")
    for page in ("/", "/ui-settings", "/dashboard", "/api/admin/settings"):
        header = {"Accept": "text/html, application/json"}
        answer = requests.get(base + page, auth=password(), headers=header, timeout=60)
        assert answer.ok, page
        assert secret not in answer.text, page


def test_prefect_server_listens_on_loopback_only(prefect_server: str, fifty_home: Path) -> None:
    server = prefect_server_of(fifty_home)
    port = f":{server.port:04X}"
    listening = [
        line.split()[1]
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        if line.split()[1].endswith(port) and line.split()[3] == "0A"
    ]
    assert listening == [f"0100007F{port}"], prefect_server


def test_a_running_server_is_used_again(prefect_server: str, fifty_home: Path) -> None:
    again = prefect_server_of(fifty_home)
    assert again.api_url == prefect_server
    assert processes.is_alive(again.process)


def prefect_server_of(home: Path) -> prefect_server.Server:
    """The session's server, by way of the call that would start one."""
    before = prefect_server.recorded(home)
    server = prefect_server.start(home)
    assert server == before
    return server


@pytest.mark.slow
def test_start_and_stop_of_a_home(session_directory: Path, libvirtd: str) -> None:
    """Started beside somebody else's server; after SIGKILL started anew; stopped; forgotten."""
    home = session_directory / "second"
    with socket.socket() as other:
        try:
            other.bind(("127.0.0.1", prefect_server.USUAL_PORT))
            other.listen()
        except OSError:
            pass  # the usual port is somebody else's already
        first = daemons.start(home)
    try:
        assert first.port != prefect_server.USUAL_PORT
        kept = (home / "fifty.env").read_text()
        assert f"FIFTY_PREFECT_API_URL={first.api_url}\n" in kept
        assert f"FIFTY_PREFECT_AUTH={prefect_server.password(home)}\n" in kept
        assert (home / "fifty.env").stat().st_mode & 0o777 == 0o600
        assert oct(home.stat().st_mode & 0o777) == "0o711"

        os.kill(first.process.pid, signal.SIGKILL)
        assert processes.wait_for_end(first.process, 60)
        assert daemons.status(home)["prefect"] is False
        second = daemons.start(home)
        assert second.process != first.process
        assert second.port == first.port
        assert (home / "fifty.env").read_text() == kept
        assert (home / "fifty.env").read_text().count("FIFTY_PREFECT_API_URL") == 1
    finally:
        stopped = daemons.stop(home)
    assert "prefect server" in stopped
    assert processes.identify(second.process.pid) is None
    assert daemons.stop(home) == []
    assert libvirt_daemons.answers(), f"{libvirtd} was stopped under its other user"


def test_a_server_that_cannot_start_says_why(session_directory: Path) -> None:
    home = session_directory / "broken"
    daemons.prepare_home(home)
    (home / "prefect").mkdir()
    (home / "prefect" / "prefect.db").write_text("this is not a database, but quite long" * 50)
    with pytest.raises(HostFault) as raised:
        prefect_server.start(home)
    assert "did not come up" in raised.value.message
    assert str(home / "logs" / "prefect-server.log") in raised.value.hint
    assert prefect_server.running(home) is None


def test_a_reused_pid_is_not_stopped() -> None:
    """A record of an ended process with a pid that now is somebody else's."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        now = processes.identify(other.pid)
        assert now is not None
        before = now.model_copy(update={"start": now.start - 1})
        assert processes.stop(before) is False
        assert other.poll() is None
        assert processes.stop(now) is True
        assert processes.identify(other.pid) is None


def test_a_process_that_ignores_sigterm_is_stopped() -> None:
    code = (
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as stubborn:
        assert stubborn.stdout is not None
        stubborn.stdout.readline()
        process = processes.identify(stubborn.pid)
        assert process is not None
        assert processes.stop(process, grace_s=0.5) is True
        assert not processes.is_alive(process)

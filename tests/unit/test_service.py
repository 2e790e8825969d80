"""What of the service can be looked at without one: parameters, entrypoints, units, records."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from blocks.errors import Conflict, Denied, InvalidRequest
from deployments import processes, units
from deployments.served_flows import SERVED
from deployments.service import record
from deployments.service.forkserver import Forkserver
from deployments.service.orders import Lines, encode


@pytest.mark.parametrize(
    "entrypoint", ["flows.create_vm.create_vm", "flows/create_vm.py:create_vm"]
)
def test_a_deployment_names_its_flow_in_either_way(entrypoint: str) -> None:
    from deployments.service.admission import find_flow

    assert find_flow(entrypoint).name == "create-vm"


@pytest.mark.parametrize(
    "entrypoint",
    [
        "",
        "os.system",
        "os:system",
        "/tmp/evil.py:flow",
        "flows/../evil.py:flow",
        "flows.create_vm.run_name",
        "flows.create_vm.create",
        "flows.reconcile.finish_build",
        "flows.no_such.flow",
        "flows.create_vm.create_vm; import os",
        "flows.create_vm.create_vm\n",
        "prefect.flows.flow",
    ],
)
def test_anything_but_a_flow_of_ours_is_refused(entrypoint: str) -> None:
    from deployments.service.admission import find_flow

    with pytest.raises(Denied, match="not a flow of Fifty Steps"):
        find_flow(entrypoint)


def test_every_served_flow_is_found_and_takes_what_its_form_shows() -> None:
    from deployments.service.admission import check_parameters, find_flow

    for served in SERVED:
        flow = find_flow(served.entrypoint)
        shown = dict.fromkeys(flow.parameters.properties)
        check_parameters(flow, shown)
        with pytest.raises(InvalidRequest, match="'force'"):
            check_parameters(flow, {**shown, "force": True})


def test_all_that_is_wrong_with_the_parameters_is_told_at_once() -> None:
    from deployments.service.admission import check_parameters, find_flow

    with pytest.raises(InvalidRequest) as refusal:
        check_parameters(find_flow("flows.create_vm.create_vm"), {"name": 1, "image": 2})
    assert list(refusal.value.details) == [
        "unknown parameter 'name'",
        "unknown parameter 'image'",
        "missing parameter 'request'",
    ]


def test_messages_arrive_whole_however_they_are_cut() -> None:
    sent: list[dict[str, object]] = [{"run": "a", "env": {"X": "1\n2"}}, {"run": "b"}]
    data = b"".join(encode(message) for message in sent)
    lines = Lines()
    got = [message for byte in data for message in lines.feed(bytes([byte]))]
    assert got == sent


def test_one_process_serves_a_home_and_the_next_is_told_which(tmp_path: Path) -> None:
    with record.alone(tmp_path) as serving:
        assert serving.process == processes.identify(os.getpid())
        assert record.running(tmp_path) == serving
        with (
            pytest.raises(Conflict, match=f"process {os.getpid()}"),
            record.alone(tmp_path),
        ):
            pass
        record.note_ready(tmp_path, serving)
        ready = record.running(tmp_path)
        assert ready is not None
        assert ready.ready is not None
    assert record.running(tmp_path) is None
    with (tmp_path / "serve.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.fixture
def forkserver() -> Forkserver:
    """One in this process, which is never told to serve."""
    handlers = {
        number: signal.getsignal(number)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)
    }
    try:
        return Forkserver(socket.socket(socket.AF_UNIX))
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def test_a_process_with_a_thread_or_an_open_file_is_not_forked(
    forkserver: Forkserver, tmp_path: Path
) -> None:
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    before = set(forkserver.unfit())
    thread.start()
    with (tmp_path / "state.db").open("w"):
        why = set(forkserver.unfit()) - before
    over.set()
    thread.join()
    assert any("threads" in reason for reason in why)
    assert any("state.db" in reason for reason in why)


def test_what_the_forkserver_imports_leaves_it_fit_to_fork() -> None:
    program = (
        "import socket, sys\n"
        "from deployments.service.forkserver import Forkserver, import_everything\n"
        "server = Forkserver(socket.socket(socket.AF_UNIX))\n"
        "import_everything()\n"
        "print(server.unfit(), 'flows.create_vm' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[] True\n", done.stdout + done.stderr


@pytest.mark.parametrize("home", ["/var/lib/fifty", '/srv/a "b" 50% $x'])
def test_the_units_are_as_systemd_wants_them(home: str, tmp_path: Path) -> None:
    """Only their form: no systemd runs where these tests do, so none is started."""
    files = []
    for name in (units.PREFECT, units.SERVE):
        text = units.render(name, Path(home), 4200)
        assert "@" not in text
        (tmp_path / name).write_text(text)
        files.append(tmp_path / name)
    serve = files[1].read_text()
    # What a run made for the guests' networks goes on when the service stops.
    assert "\nKillMode=process\n" in serve
    for own_mounts in ("ProtectSystem", "PrivateTmp", "ProtectHome", "PrivateMounts"):
        assert f"\n{own_mounts}" not in serve
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here")
    checked = subprocess.run(
        ["systemd-analyze", "verify", *files], capture_output=True, text=True, check=False
    )
    ours = [line for line in checked.stderr.splitlines() if "fifty-" in line]
    assert (checked.returncode, ours) == (0, []), checked.stderr


def test_a_process_that_has_ended_is_told_from_one_of_another_host() -> None:
    from deployments.service import settle

    ours = settle.identifier("here", os.getpid())
    assert not settle.has_ended(ours, "here")
    # Whatever the host is called by now: this kernel runs it.
    assert not settle.has_ended(ours, "renamed")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        its = settle.identifier("here", child.pid)
        assert not settle.has_ended(its, "here")
    assert settle.has_ended(its, "here")
    assert settle.has_ended(its, "renamed")
    _host, pid, start, _boot = ours.split(":")
    before_a_reboot = f"here:{pid}:{start}:another-boot"
    assert settle.has_ended(before_a_reboot, "here")
    assert not settle.has_ended(before_a_reboot, "there")

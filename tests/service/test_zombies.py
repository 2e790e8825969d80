"""Runs whose worker and process were both killed: nobody is left to say so, and it is said."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deployments import prefect_server
from tests.cloud import Cloud
from tests.service.served import Served, children
from tests.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

#: The product's promise.
CRASHED_WITHIN_S = 90
CREATE = ("--image", "micro", "--network", "lab")


@pytest.fixture
def terminal(cloud: Cloud) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Commands as a person runs them; what still runs after the test is killed."""
    begun: list[subprocess.Popen[bytes]] = []

    def start(*words: str, fault: str = "") -> subprocess.Popen[bytes]:
        command = subprocess.Popen(
            [str(Path(sys.executable).with_name("fifty")), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=cloud.environment(fault),
        )
        begun.append(command)
        return command

    yield start
    for command in begun:
        command.kill()
        command.wait()


def at_step(cloud: Cloud, name: str, number: int) -> str:
    """Wait until a build has begun a step; the id of the flow run that works on it."""

    def look() -> str | None:
        builds = [one for one in cloud.world.store.builds.unfinished() if one.name == name]
        return next((one.flow_run_id for one in builds if number in cloud.journal(one)), None)

    return str(eventually(look, f"step {number} of {name}"))


def comes_to(cloud: Cloud, name: str, state: str) -> None:
    """Wait until a build is at this end."""
    eventually(lambda: cloud.build(name).state == state, f"{name} that is {state}")


def test_what_was_killed_with_its_worker_shows_crashed_and_what_lives_does_not(
    cloud: Cloud, served: Served, terminal: Callable[..., subprocess.Popen[bytes]]
) -> None:
    crashed = served.create("zombie", fault="36:hang")
    cancelled = served.create("unwanted-zombie", fault="36:hang")
    typed = terminal("vm", "create", "typed-zombie", *CREATE, fault="36:hang")
    living = terminal("vm", "create", "sleeper", *CREATE, fault="36:hang")
    typed_run = at_step(cloud, "typed-zombie", 36)
    living_run = at_step(cloud, "sleeper", 36)
    for name, run in (("zombie", crashed), ("unwanted-zombie", cancelled)):
        assert at_step(cloud, name, 36) == run

    # At rest first, so that nobody can tell how the others ended.
    at_rest = [served.pid, served.forkserver]
    runs = children(served.forkserver)
    assert {served.process_of(crashed), served.process_of(cancelled)} <= set(runs)
    for pid in (*at_rest, living.pid):
        os.kill(pid, signal.SIGSTOP)
    served.cancel(cancelled)
    killed = time.monotonic()
    for pid in (*runs, typed.pid, *at_rest):
        os.kill(pid, signal.SIGKILL)
    assert served.stop() == typed.wait() == -signal.SIGKILL
    # A server that was away has heard of nobody for a while, and looks for itself.
    server = prefect_server.running(cloud.home)
    assert server is not None
    prefect_server.stop(cloud.home)
    prefect_server.start(cloud.home, server.port)

    for run in (crashed, typed_run):
        assert served.end_of(run)["name"] == "Crashed"
        assert "process is gone" in served.run(run)["state"]["message"]
        assert time.monotonic() - killed <= CRASHED_WITHIN_S
    assert served.end_of(cancelled)["name"] == "Cancelled"
    # It was silent for as long as they were; but it is there.
    assert served.run(living_run)["state"]["name"] == "Running"
    assert cloud.build("zombie").state == "building"

    # Both at once: the kernel may give the second to a thread that Python does not listen in.
    living.send_signal(signal.SIGCONT)
    living.send_signal(signal.SIGTERM)
    living.wait()
    served.start()
    for name in ("zombie", "typed-zombie", "sleeper"):
        comes_to(cloud, name, "complete")
        assert cloud.ssh(name, "hostname").strip() == name
    comes_to(cloud, "unwanted-zombie", "undone")
    assert [one["name"] for one in served.states(crashed)][-2:] == ["Running", "Crashed"]


def test_a_run_within_a_run_ends_with_it(
    cloud: Cloud, served: Served, terminal: Callable[..., subprocess.Popen[bytes]]
) -> None:
    """`fifty reconcile` brings builds to an end in runs of their own, in its own process."""
    assert cloud.run("vm", "create", "inner", *CREATE, fault="36:kill").returncode == -9
    os.kill(served.pid, signal.SIGSTOP)  # its own reconcile would be as quick
    try:
        command = terminal("reconcile", fault="36:hang")
        eventually(lambda: cloud.journal(cloud.build("inner"))[36].attempts == 2, "step 36 again")
        inner = str(cloud.build("inner").flow_run_id)
        task = served.run(inner)["parent_task_run_id"]
        assert task is not None
        command.kill()
        command.wait()
        assert served.end_of(inner)["name"] == "Crashed"
    finally:
        os.kill(served.pid, signal.SIGCONT)
    cloud.run("reconcile")  # or the served one is quicker
    comes_to(cloud, "inner", "complete")

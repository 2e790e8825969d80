"""`fifty reconcile`: builds whose process was killed come to an end, each as it should."""

from __future__ import annotations

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from blocks.state import StepState
from tests.cloud import Cloud
from tests.inventory import differences
from tests.waiting import eventually

pytestmark = pytest.mark.e2e

CREATE = ("--image", "micro", "--network", "lab")


def killed(cloud: Cloud, fault: str, *words: str) -> None:
    """Run a command that is killed by this fault."""
    assert cloud.run(*words, fault=fault).returncode == -9, words


def reconciled(cloud: Cloud) -> dict[str, tuple[str, str]]:
    """Reconcile; what each stopped build was doing, and how it stands now, by its name."""
    document: dict[str, Any] = cloud.json("reconcile")
    return {item["name"]: (item["stopped_while"], item["state"]) for item in document["reconciled"]}


def test_every_stopped_build_comes_to_its_end(cloud: Cloud) -> None:
    before = cloud.inventory()
    cloud.fifty("vm", "create", "gone", *CREATE)
    killed(cloud, "u36:kill:after", "vm", "delete", "gone")
    killed(cloud, "30:kill:after", "vm", "create", "goes-on", *CREATE)
    killed(cloud, "42:kill", "vm", "create", "goes-back", *CREATE, "--on-interrupt", "rollback")
    killed(cloud, "43:raise,u25:kill", "vm", "create", "was-undone", *CREATE)
    killed(cloud, "4:kill:after", "network", "create", "half", "--cidr", "10.77.9.0/24")
    assert cloud.json("vm", "show", "goes-back")["status"] == "BUILD"

    assert reconciled(cloud) == {
        "gone": ("deleting", "deleted"),
        "goes-on": ("building", "complete"),
        "goes-back": ("building", "undone"),
        # Never gone on with again: its undo had begun.
        "was-undone": ("undoing", "undone"),
        "half": ("building", "complete"),
    }
    assert cloud.ssh("goes-on", "hostname").strip() == "goes-on"
    assert cloud.json("vm", "show", "was-undone")["fault"]["step"] == 43
    assert reconciled(cloud) == {}
    assert "No build had stopped." in cloud.fifty("reconcile")

    for name in ("goes-on", "goes-back", "was-undone"):
        cloud.fifty("vm", "delete", name)
    cloud.fifty("network", "delete", "half")
    assert differences(before, cloud.inventory()) == []


def test_two_reconciles_do_the_work_once_and_a_living_build_is_left_alone(cloud: Cloud) -> None:
    killed(cloud, "26:kill:after", "vm", "create", "stopped", *CREATE)
    fifty = str(Path(sys.executable).with_name("fifty"))
    with subprocess.Popen(
        [fifty, "vm", "create", "alive", *CREATE], stdout=subprocess.PIPE, text=True
    ) as living:
        assert living.stdout is not None
        for line in living.stdout:
            if "26 ·" in line:
                break
        with ThreadPoolExecutor(2) as pool:
            ran = list(pool.map(lambda _turn: cloud.run("reconcile", "--json"), range(2)))
        living.stdout.read()
    assert living.returncode == 0
    assert all('"alive"' not in done.stdout for done in ran)
    assert cloud.json("vm", "show", "stopped")["status"] == "ACTIVE"
    journal = cloud.journal(cloud.build("stopped"))
    assert journal[26].attempts == 2, "its end was not recorded: it is done again"
    assert {journal[number].attempts for number in range(41, 51)} == {1}
    states = {entry.state for entry in cloud.journal(cloud.build("alive")).values()}
    assert states == {StepState.DONE}


@pytest.mark.parametrize("step", [36, 44])
def test_a_process_that_was_stopped_until_it_lost_its_lease_does_nothing_more(
    cloud: Cloud, step: int
) -> None:
    before = cloud.inventory()
    fifty = str(Path(sys.executable).with_name("fifty"))
    words = ("vm", "create", "stuck", *CREATE, "--on-interrupt", "rollback", "--json")
    with subprocess.Popen(
        [fifty, *words],
        env={**cloud.environment(f"{step}:hang:after"), "FIFTY_LEASE_S": "4"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as stuck:
        try:
            eventually(lambda: _runs(cloud, "stuck", step), f"build at step {step}")
            eventually(lambda: _stopped_outside_of_a_write(stuck), "process that is stopped")
            build = cloud.build("stuck")
            held = cloud.world.store.leases.held
            eventually(lambda: held(build.id) is None, "end of its lease")
            assert reconciled(cloud)["stuck"] == ("building", "undone")
            assert differences(before, cloud.inventory()) == []
            stuck.send_signal(signal.SIGCONT)
            said, _log = stuck.communicate(timeout=300)
        finally:
            # Also one that is stopped: a wait for it would have no end.
            stuck.kill()
    assert stuck.returncode != 0, said
    assert differences(before, cloud.inventory()) == []
    # Its step came to an end after it had been undone: so it is undone once more.
    assert reconciled(cloud).get("stuck", ("undoing", "undone")) == ("undoing", "undone")
    states = {entry.state for entry in cloud.journal(build).values()}
    assert states == {StepState.UNDONE}, "what it wrote down after it had lost its lease"
    assert differences(before, cloud.inventory()) == []
    assert cloud.json("vm", "show", "stuck")["status"] == "ERROR"
    assert cloud.json("audit")["clean"]


def _runs(cloud: Cloud, name: str, step: int) -> bool:
    found = [build for build in cloud.world.store.builds.unfinished() if build.name == name]
    return any(
        entry.step == step and entry.state is StepState.RUNNING
        for build in found
        for entry in cloud.journal(build).values()
    )


def _stopped_outside_of_a_write(process: subprocess.Popen[str]) -> bool:
    """Stop a process; not while it has the store's write lock, which would stop everybody."""
    process.send_signal(signal.SIGSTOP)
    stat = Path(f"/proc/{process.pid}/stat")
    eventually(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", "stop")
    locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    if any(("WRITE", str(process.pid)) == (lock[3], lock[4]) for lock in locks):
        process.send_signal(signal.SIGCONT)
        return False
    return True

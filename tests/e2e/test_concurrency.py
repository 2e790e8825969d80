"""Many builds at once, from processes of their own: nothing is given out twice, nothing stays."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.states import Cancelling

from blocks.state import Build, StepState
from tests.cloud import TIMEOUT_S, Cloud
from tests.inventory import differences
from tests.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

BUILDS = 20
CROWD = "10.77.30.0/24"
#: Who is stopped, when it has begun a step, and how: in the branches, and in the main thread.
KILLED = {3: 27, 11: 42}
CANCELLED, CANCELLED_AT = 7, 32
#: What SQLite says, and what Prefect's server and our store make of it.
LOCKED = ("database is locked", "database table is locked", "OperationalError")
#: DHCP's own address, and one more.
TIGHT, POOL = "10.77.31.0/24", "10.77.31.20-10.77.31.21"
ASKING = 5


@dataclass
class Command:
    """`fifty` in a process of its own, and what it says."""

    name: str
    process: subprocess.Popen[bytes]
    said: Path

    def document(self) -> dict[str, Any]:
        """Wait for its end; what it answered, with its exit code as `code`."""
        code = self.process.wait(TIMEOUT_S)
        try:
            found = json.loads(self.said.with_suffix(".out").read_text())
        except json.JSONDecodeError:
            found = {}
        return {**found, "code": code}


class Crowd:
    """Commands that run at the same time.

    Args:
        cloud: The site.
        folder: For what they say.
    """

    def __init__(self, cloud: Cloud, folder: Path) -> None:
        self._cloud = cloud
        self._folder = folder
        self.commands: list[Command] = []

    def start(self, name: str, *words: str, fault: str = "") -> Command:
        """Start `fifty ... --json`."""
        said = self._folder / f"{len(self.commands)}-{name}"
        out, err = said.with_suffix(".out"), said.with_suffix(".err")
        with out.open("wb") as output, err.open("wb") as errors:
            process = subprocess.Popen(
                [str(Path(sys.executable).with_name("fifty")), *words, "--json"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                env=self._cloud.environment(fault),
            )
        self.commands.append(Command(name, process, said))
        return self.commands[-1]

    def create(self, name: str, network: str, *words: str, fault: str = "") -> Command:
        """Start `fifty vm create`, of a small VM."""
        vm = ("--image", "micro", "--flavor", "tiny", "--network", network)
        return self.start(name, "vm", "create", name, *vm, *words, fault=fault)

    def said(self) -> str:
        """All that was said so far."""
        return "\n".join(file.read_text() for file in sorted(self._folder.glob("*")))


@pytest.fixture
def crowd(cloud: Cloud, tmp_path: Path) -> Iterator[Crowd]:
    """Commands, which are over when the test is."""
    found = Crowd(cloud, tmp_path)
    yield found
    for command in found.commands:
        command.process.kill()
        command.process.wait()


@pytest.fixture
def network(cloud: Cloud) -> Iterator[str]:
    """A network that the test has for itself."""
    cloud.fifty("network", "create", "crowd", "--cidr", CROWD)
    yield "crowd"
    names = [vm["name"] for vm in cloud.json("vm", "list") if vm["name"].startswith("crowd-")]
    cloud.delete(names)
    cloud.fifty("network", "delete", "crowd")


@pytest.fixture
def tight(cloud: Cloud) -> Iterator[str]:
    """A network with one free address."""
    cloud.fifty("network", "create", "tight", "--cidr", TIGHT, "--pool", POOL)
    yield "tight"
    names = [vm["name"] for vm in cloud.json("vm", "list") if vm["name"].startswith("tight-")]
    cloud.delete(names)
    cloud.fifty("network", "delete", "tight")


def builds(cloud: Cloud) -> dict[str, Build]:
    """The builds that are not over, by name."""
    return {one.name: one for one in cloud.world.store.builds.unfinished()}


def in_the_middle(cloud: Cloud, name: str, step: int) -> Build:
    """Wait until a build works on this step or a later one, but has not come to its last ones."""

    def look() -> Build | None:
        build = builds(cloud).get(name)
        journal = cloud.journal(build) if build else {}
        return build if any(number >= step for number in journal) else None

    build = eventually(look, f"step {step} of {name}")
    assert build is not None
    assert 48 not in cloud.journal(build), f"{name} was too quick"
    return build


def stopped(cloud: Cloud, command: Command, step: int) -> str:
    """Stop a build in the middle: kill -9 its process, or, for step 32, cancel it; its id."""
    build = in_the_middle(cloud, command.name, step)
    if step != CANCELLED_AT:
        command.process.send_signal(signal.SIGKILL)
        assert command.process.wait() == -signal.SIGKILL
        done = cloud.journal(cloud.world.store.builds.get(build.id))
        assert step <= max(done) < 48
        assert {entry.state for entry in done.values()} <= {StepState.DONE, StepState.RUNNING}
        return build.id
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(UUID(build.flow_run_id), Cancelling())
    return build.id


def logs(flow_runs: list[str]) -> str:
    """What these flow runs have logged."""
    found: list[str] = []
    with get_client(sync_client=True) as client:
        wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[UUID(run) for run in flow_runs]))
        while page := client.read_logs(wanted, limit=200, offset=len(found)):
            found += [entry.message for entry in page]
    return "\n".join(found)


def server_log(cloud: Cloud) -> Path:
    """The log of the session's Prefect server."""
    return cloud.home / "logs" / "prefect-server.log"


def held(cloud: Cloud) -> dict[str, int]:
    """How the tenant stands with its quota."""
    store = cloud.world.store
    [tenant] = [one for one in store.tenants.list() if one.name == "default"]
    return {name: used for name, (used, _limit) in store.quota.standing(tenant.id).items()}


def test_twenty_builds_at_once_of_which_three_are_stopped(
    cloud: Cloud, network: str, crowd: Crowd
) -> None:
    before, quota = cloud.inventory(), held(cloud)
    log_before = server_log(cloud).stat().st_size
    victims = {**KILLED, CANCELLED: CANCELLED_AT}
    commands = [
        crowd.create(f"crowd-{number}", network, "--on-interrupt", "rollback")
        for number in range(BUILDS)
    ]
    with ThreadPoolExecutor(len(victims)) as pool:
        ids = list(pool.map(lambda n: stopped(cloud, commands[n], victims[n]), victims))
    ended = {command.name: command.document() for command in commands}

    survivors = [f"crowd-{number}" for number in range(BUILDS) if number not in victims]
    failed = {name: ended[name] for name in survivors if ended[name].get("status") != "ACTIVE"}
    assert failed == {}, crowd.said()
    assert ended[f"crowd-{CANCELLED}"]["build_state"] == "undone"
    reconciled = {one["name"]: one["state"] for one in cloud.json("reconcile")["reconciled"]}
    for number in KILLED:
        assert reconciled[f"crowd-{number}"] == "undone"

    # Each has its own address and MAC, and it is the guest that has them.
    [nic] = zip(*(ended[name]["addresses"] for name in survivors), strict=True)
    addresses, macs = {one["address"] for one in nic}, {one["mac"] for one in nic}
    assert len(addresses) == len(macs) == len({one["tap"] for one in nic}) == len(survivors)
    with ThreadPoolExecutor(4) as pool:
        told = pool.map(lambda name: cloud.ssh(name, "hostname; cat /sys/class/net/eth0/address"),
                        survivors)  # fmt: skip
        for name, words in zip(survivors, told, strict=True):
            assert words.split() == [name, ended[name]["addresses"][0]["mac"]]

    # What is given out is what they have, and nothing else.
    store = cloud.world.store
    network_id = next(one.id for one in store.networks.list() if one.name == network)
    vm_ports = [port for port in store.ports.list(network_id=network_id) if port.device_id in
                {cloud.instance(name).id for name in survivors}]  # fmt: skip
    others = [port for port in store.ports.list(network_id=network_id) if port not in vm_ports]
    assert {str(one.address) for port in vm_ports for one in port.addresses} == addresses
    assert {port.mac for port in vm_ports} == macs
    assert [port.kind for port in others] == ["dhcp"], others
    gained = {name: amount - quota[name] for name, amount in held(cloud).items()}
    few = len(survivors)
    few_of = {"instances": few, "cores": few, "ram_mib": 256 * few, "ports": few}
    assert gained == dict.fromkeys(gained, 0) | few_of
    claims = [cloud.world.store.hosts.claim_of(build_id) for build_id in ids]
    assert claims == [None] * len(victims)

    flow_runs = [str(store.builds.get(cloud.instance(command.name).id).flow_run_id)
                 for command in commands]  # fmt: skip
    with server_log(cloud).open() as log:
        log.seek(log_before)
        heard = {"commands": crowd.said(), "runs": logs(flow_runs), "server": log.read()}
    assert {(where, word) for where, text in heard.items() for word in LOCKED if word in text} == (
        set()
    )

    cloud.delete(f"crowd-{number}" for number in range(BUILDS))
    assert differences(before, cloud.inventory()) == []
    assert held(cloud) == quota


def test_the_last_address_is_given_out_once(cloud: Cloud, tight: str, crowd: Crowd) -> None:
    before = cloud.inventory()
    # All have been told that there is an address (7), and none has taken it (21).
    waiting = [crowd.create(f"tight-{number}", tight, fault="20:kill") for number in range(ASKING)]
    assert {command.process.wait(TIMEOUT_S) for command in waiting} == {-signal.SIGKILL}
    commands = [
        crowd.start(f"again-{number}", "vm", "resume", f"tight-{number}")
        for number in range(ASKING)
    ]
    ended = [command.document() for command in commands]

    assert Counter(one["code"] for one in ended) == {0: 1, 1: ASKING - 1}, crowd.said()
    [winner] = [one for one in ended if one["code"] == 0]
    assert winner["status"] == "ACTIVE"
    assert cloud.ssh(winner["name"], "hostname").strip() == winner["name"]
    for one in ended:
        if one is not winner:
            assert (one["error"], one["step"], one["build_state"]) == ("Conflict", 21, "undone")
            assert one["message"] == f"no address is free in {TIGHT}"
            assert one["hint"]
            assert one["left"] == []

    # Who comes now hears it at once, before anything is made.
    late = cloud.json("vm", "create", "tight-late", "--image", "micro", "--network", tight, code=1)
    assert (late["error"], late["build_state"]) == ("Conflict", "refused")
    assert TIGHT in late["message"]
    cloud.delete([winner["name"]])
    assert differences(before, cloud.inventory()) == []

"""From the flow's start to the first SSH answer, against a bare libvirt boot.

Both boot the same image on an overlay, with an interface on the same bridge whose address
dnsmasq has reserved, a config drive, and a domain of the same XML, and both wait alike. The
bare one is a VM of ours whose network stays as it is; what is measured of it is all that
a script of somebody who knows libvirt would do: overlay, config drive, define, start, wait.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from statistics import median

import libvirt

from blocks.guest import accepts_key, banner
from blocks.images.config_drive import build_config_drive
from blocks.marks import dhcp_namespace
from blocks.state import Entry
from deployments import libvirt_daemons
from tests.bench.figures import Figure, of_samples, say
from tests.cloud import Cloud
from tests.prefect_api import api

TARGET = 1.15
FIXED_IP = "10.79.1.50"
FLAVOR = "tiny"
#: Seconds that the observer gives one attempt to connect.
_ATTEMPT_S = 0.5
_POLL_S = 0.05
_ANSWER_S = 5.0
_LIMIT_S = 300.0


@dataclass(frozen=True)
class Build:
    """One `fifty vm create`, in seconds.

    Attributes:
        start_up: From the command's start to the flow's.
        login: From the flow's start to the SSH server's taking of the key.
        command: The whole command.
        journal: Its steps.
        spans: What the way to the login is made of.
    """

    start_up: float
    login: float
    command: float
    journal: dict[int, Entry]
    spans: dict[str, float]


class BareBoot:
    """Boots a guest with nothing but qemu-img, pycdlib and libvirt-python.

    Args:
        cloud: Where the VM `bare` is; its guest is stopped, its network stays.
    """

    def __init__(self, cloud: Cloud) -> None:
        # Here, because it imports Prefect.
        from tasks.vm_build import VmBuild

        cloud.fifty("vm", "create", "bare", "--image", "micro", "--network", "lab")
        self._build = VmBuild(cloud.world, cloud.build("bare"))
        self._xml = self._build.plan["xml"]
        self._documents = self._build.metadata
        self._owner = self._build.hypervisor.qemu_identity()
        self._libvirt = libvirt.open(libvirt_daemons.URI)
        self._forget()

    def __call__(self) -> tuple[float, dict[str, float]]:
        """Boot once.

        Returns:
            Seconds from nothing to the SSH server's taking of the key, and what they were
            spent on.
        """
        build = self._build
        started = time.monotonic()
        size = f"{build.instance.flavor.disk_gib}G"
        words = ["create", "-q", "-f", "qcow2", "-b", str(build.base), "-F", "qcow2"]
        subprocess.run(["qemu-img", *words, str(build.disk), size], check=True)
        build_config_drive(build.config_drive, self._documents)
        for file in (build.disk, build.config_drive):
            os.chown(file, *self._owner)
        disks = time.monotonic()
        self._libvirt.defineXML(self._xml).create()
        running = time.monotonic()
        self._wait()
        ended = time.monotonic()
        self._forget()
        return ended - started, {
            "disks": disks - started,
            "define and start": running - disks,
            "boot to login": ended - running,
        }

    def _wait(self) -> None:
        """Until the address is answered for, SSH speaks, and takes the key; as steps 48, 49."""
        build = self._build
        [binding] = build.bindings
        namespace, address = dhcp_namespace(binding.network.id), binding.port.addresses[0].address
        _until(lambda: build.fabric.neighbour_answers(binding.port, binding.network))
        _until(lambda: banner(namespace, address, _ANSWER_S) is not None)
        user, known_hosts = build.image.login_user, build.directory / "known_hosts"
        key = build.key
        assert key is not None
        _until(lambda: accepts_key(namespace, user, address, key[1], known_hosts, _ANSWER_S))

    def _forget(self) -> None:
        domain = self._libvirt.lookupByUUIDString(self._build.build_id)
        if domain.isActive():
            domain.destroy()
        domain.undefine()
        directory = self._build.directory
        for file in (self._build.disk, self._build.config_drive, directory / "known_hosts"):
            file.unlink(missing_ok=True)


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _LIMIT_S
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError("the bare guest did not come up")
        time.sleep(_POLL_S)


class Observer:
    """Sees by itself when a guest first speaks SSH: asks for the banner, again and again."""

    def __init__(self, cloud: Cloud) -> None:
        self._namespace = dhcp_namespace(cloud.ports("bare")[0].network_id)
        self.seen: float | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Observer:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        from ipaddress import IPv4Address

        while not self._over.wait(_POLL_S):
            if banner(self._namespace, IPv4Address(FIXED_IP), _ATTEMPT_S) is not None:
                self.seen = time.time()
                return


def create(cloud: Cloud, name: str) -> tuple[Build, float]:
    """Run `fifty vm create` once, and delete the VM.

    Returns:
        What it took, and the moment of its login.
    """
    began = time.time()
    document = cloud.json(
        *("vm", "create", name, "--image", "micro", "--flavor", FLAVOR),
        *("--network", "lab", "--fixed-ip", FIXED_IP),
    )
    ended = time.time()
    build = cloud.build(name)
    run = api("GET", f"/flow_runs/{document['flow_run_id']}").json()
    flow = datetime.fromisoformat(run["start_time"]).timestamp()
    accepted = build.accepted_at.timestamp()
    clocks = document["clocks"]
    login = accepted + clocks["login_s"]
    journal = cloud.journal(build)
    first = journal[1].started_at
    assert first is not None
    spans = {
        "flow's start to step 1": first.timestamp() - flow,
        "step 1 to running": accepted + clocks["running_s"] - first.timestamp(),
        "running to booted": clocks["booted_s"] - clocks["running_s"],
        "booted to login": clocks["login_s"] - clocks["booted_s"],
        "login to the command's end": ended - login,
    }
    cloud.fifty("vm", "delete", name)
    return Build(flow - began, login - flow, ended - began, journal, spans), login


def measure(cloud: Cloud, runs: int) -> list[Figure]:
    """The ratios to a bare boot, bare and ours by turns."""
    bare = BareBoot(cloud)
    bare_times: list[tuple[float, dict[str, float]]] = []
    builds: list[Build] = []
    with Observer(cloud) as observer:
        _, login = create(cloud, "observed")
    seen = observer.seen
    # The observer is late by one attempt at the most: one that began before SSH was there.
    late = _POLL_S + _ATTEMPT_S
    assert seen is not None and seen <= login + late, "the login clock stopped before SSH spoke"
    bare()
    for run in range(runs):
        bare_times.append(bare())
        builds.append(create(cloud, f"vm{run}")[0])
        say(f"boot {run + 1}: bare {bare_times[-1][0]:.2f} s, ours {builds[-1].login:.2f} s")
    pairs = list(zip(builds, bare_times, strict=True))
    ratio = of_samples(
        "micro: flow's start to SSH / bare boot",
        [build.login / bare_s for build, (bare_s, _) in pairs],
        "",
        TARGET,
    )
    ratio.notes = [
        f"bare {median(s for s, _ in bare_times):.2f} s: {_spans([s for _, s in bare_times])}",
        f"ours {median(b.login for b in builds):.2f} s: {_spans([b.spans for b in builds])}",
        f"an observer saw SSH's banner {login - seen:.2f} s before the login clock stopped",
        *_slowest(builds),
    ]
    felt = of_samples(
        "micro: the whole command / bare boot",
        [build.command / bare_s for build, (bare_s, _) in pairs],
        "",
    )
    start_up = of_samples(
        "micro: command's start to flow's start", [build.start_up for build in builds], "s"
    )
    gap = of_samples("micro: between two steps", [_between(b.journal) * 1000 for b in builds], "ms")
    gap.notes = ["one step's closed journal row to the next one's open row, steps 1-23 and 41-50"]
    return [ratio, felt, start_up, gap]


def _spans(spans: list[dict[str, float]]) -> str:
    return ", ".join(f"{name} {median(one[name] for one in spans):.2f}" for name in spans[0])


def _seconds(entry: Entry) -> float:
    assert entry.started_at is not None and entry.finished_at is not None
    return (entry.finished_at - entry.started_at).total_seconds()


def _between(journal: dict[int, Entry]) -> float:
    gaps = []
    for number in (*range(1, 23), *range(41, 50)):
        ended, began = journal[number].finished_at, journal[number + 1].started_at
        assert ended is not None and began is not None
        gaps.append((began - ended).total_seconds())
    return median(gaps)


def _slowest(builds: list[Build]) -> list[str]:
    took = {
        number: median(_seconds(build.journal[number]) for build in builds)
        for number in builds[0].journal
    }
    order = sorted(took, key=lambda number: -took[number])
    told = [f"{number}: {took[number] * 1000:.0f}" for number in order if took[number] > 0.01]
    return [f"steps in ms: {', '.join(told)}; the others {_rest(took):.0f} together"]


def _rest(took: dict[int, float]) -> float:
    return sum(seconds for seconds in took.values() if seconds <= 0.01) * 1000

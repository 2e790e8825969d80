"""TCP from guest to guest on one bridge: with the security groups' rules, and without any."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from blocks.fabric import run_in
from blocks.resources import FirewallRule
from tests.bench.figures import Figure, of_samples, say
from tests.host.fabric_lab import ANY_EGRESS, Guest, Lab, lab_at, wait_for

#: 90 % of the throughput without rules, as the ratio the other way round.
TARGET = 1 / 0.9
#: Seconds of each transfer, after one when TCP finds its pace.
_SECONDS = 2
_RULES = (
    ANY_EGRESS,
    FirewallRule(direction="ingress", protocol="icmp"),
    FirewallRule(direction="ingress", protocol="tcp", port_min=22, port_max=22),
    FirewallRule(direction="ingress", protocol="tcp", port_min=5201, port_max=5201),
)


def measure(directory: Path, runs: int) -> list[Figure]:
    """Throughput without rules / with them, each run both, one right after the other."""
    with lab_at(directory / "throughput") as lab:
        net = lab.net()
        guests = [lab.guest(net, last, _RULES) for last in (11, 12)]
        for guest in guests:
            guest.configure()
        with _server(guests[1]):
            pairs = [_pair(lab, guests, run) for run in range(runs)]
    ratio = of_samples("TCP on one bridge: without rules / with", _ratios(pairs), "", TARGET)
    ratio.notes = [
        f"{without:.1f} Gbit/s without, {with_rules:.1f} with" for with_rules, without in pairs
    ]
    return [ratio]


def _ratios(pairs: list[tuple[float, float]]) -> list[float]:
    return [without / with_rules for with_rules, without in pairs]


def _pair(lab: Lab, guests: list[Guest], run: int) -> tuple[float, float]:
    """The best of three each, in turns: what else the machine does only ever takes away."""
    best = {True: 0.0, False: 0.0}
    for ruled in (True, False, False, True, True, False):
        for guest in guests:
            if ruled:
                lab.fabric.protect(guest.binding)
            else:
                lab.fabric.unprotect(guest.binding.port)
        best[ruled] = max(best[ruled], _gbits(*guests))
    say(f"throughput {run}: {best[True]:.1f} Gbit/s with rules, {best[False]:.1f} without")
    return best[True], best[False]


def _gbits(client: Guest, server: Guest) -> float:
    words = ["iperf3", "--json", "--omit", "1", "--time", str(_SECONDS)]
    done = client.run(*words, "--client", str(server.address))
    return float(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"]) / 1e9


@contextmanager
def _server(guest: Guest) -> Iterator[None]:
    process = run_in(
        guest.namespace,
        lambda: subprocess.Popen(
            ["iperf3", "--server"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ),
    )
    try:
        wait_for("iperf3 to listen", lambda: "5201" in guest.run("ss", "-Hltn").stdout)
        yield
    finally:
        process.terminate()
        process.wait()

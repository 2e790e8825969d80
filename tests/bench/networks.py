"""What ports, and networks with routers, cost on a host; and that nothing is left of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median

from blocks.resources import FirewallRule, Router
from tests.bench.figures import Figure, of_samples, say
from tests.host.fabric_lab import ANY_EGRESS, Lab, Net, ip, lab_at

PORT_MS, NETWORK_MS = 30.0, 150.0
#: How much dearer a port may be where there are many.
MANY, DEARER = 200, 1.5
NETWORKS = 50
_SAMPLES = 15
_RULES = (
    ANY_EGRESS,
    FirewallRule(direction="ingress", protocol="icmp"),
    FirewallRule(direction="ingress", protocol="tcp", port_min=22, port_max=22),
    FirewallRule(direction="ingress", protocol="tcp", port_min=80, port_max=443),
)


def measure_ports(directory: Path, runs: int) -> list[Figure]:
    """A port of a guest: tap in its bridge, reservation, rules, read back; alone, and with many."""
    alone, among = [], []
    for run in range(runs):
        with lab_at(directory / f"ports-{run}") as lab:
            net = lab.served("10.5.0.0/16")
            lab.fabric.serve_metadata(net.network)
            # Before and after: what else the machine does changes meanwhile.
            costs = _ports(lab, net)
            others = [_port(lab, net, 1000 + number) for number in range(MANY)]
            among.append(median(_ports(lab, net)))
            for _, remove in others:
                remove()
            alone.append(median([*costs, *_ports(lab, net)]))
        say(f"ports {run}: {alone[-1]:.1f} ms alone, {among[-1]:.1f} ms with {MANY} others")
    cost = of_samples("a port", alone, "ms", PORT_MS)
    cost.notes = [f"the median of {2 * _SAMPLES}; tap, bridge, reservation, rules, read back"]
    ratio = of_samples(
        f"a port with {MANY} others / alone",
        [many / one for one, many in zip(alone, among, strict=True)],
        "",
        DEARER,
    )
    ratio.notes = [f"with {MANY} others {median(among):.1f} ms"]
    return [cost, ratio]


def measure_networks(directory: Path, runs: int) -> list[Figure]:
    """Networks with routers, made one after the other, and deleted."""
    each, all_of_them, left = [], [], 0
    for run in range(runs):
        with lab_at(directory / f"networks-{run}") as lab, _outside(lab) as outside:
            before = _everything(lab)
            began = time.perf_counter()
            nets, costs = [], []
            for number in range(NETWORKS):
                net = lab.net(f"10.{number}.0.0/24", realize=False)
                router = _router(lab, net, outside, 20 + number)
                nets.append((net, router))
                costs.append(_timed(partial(_make, lab, net, router)))
            for net, router in nets:
                _delete(lab, net, router)
            all_of_them.append(time.perf_counter() - began)
            each.append(median(costs))
            rest = _everything(lab) - before
            left += len(rest)
        say(f"networks {run}: {each[-1]:.0f} ms each, {all_of_them[-1]:.1f} s in all, left: {rest}")
    cost = of_samples("a network with a router", each, "ms", NETWORK_MS)
    cost.notes = [
        f"the median of {NETWORKS}, one after the other",
        "bridge, DHCP server, metadata server, router with its gateway and SNAT",
    ]
    whole = of_samples(f"{NETWORKS} networks made and deleted", all_of_them, "s")
    return [cost, whole, Figure("links, namespaces, files left of them", left, "", 0)]


def _ports(lab: Lab, net: Net) -> list[float]:
    """What each of some ports costs, in milliseconds; each is removed again."""
    costs = []
    for number in range(_SAMPLES):
        cost, remove = _port(lab, net, 100 + number)
        remove()
        costs.append(cost)
    return costs


def _port(lab: Lab, net: Net, last: int) -> tuple[float, Callable[[], None]]:
    binding, fabric = lab.binding(net, last, _RULES), lab.fabric
    fabric.put_metadata(binding, {"meta_data.json": b"{}"})

    def make() -> None:
        fabric.plug(binding, None)
        fabric.reserve(binding)
        fabric.protect(binding)
        wrong = fabric.prove(binding)
        assert wrong == [], wrong

    def remove() -> None:
        fabric.unprotect(binding.port)
        fabric.release(binding.port)
        fabric.unplug(binding.port)
        fabric.drop_metadata(binding.port)

    return _timed(make), remove


def _timed(call: Callable[[], None]) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000


@contextmanager
def _outside(lab: Lab) -> Iterator[Net]:
    net = lab.net("198.51.100.0/24", external=True)
    lab.fabric.realize_outside(net.network, net.subnet)
    yield net


def _router(lab: Lab, net: Net, outside: Net, last: int) -> Router:
    """A router with an address of its own in the outside that all share."""
    router = lab.router(net, outside=outside)
    assert router.gateway
    [fixed] = router.gateway.port.addresses
    own = fixed.model_copy(update={"address": outside.subnet.cidr[last]})
    port = router.gateway.port.model_copy(update={"addresses": (own,)})
    return router.model_copy(update={"gateway": router.gateway.model_copy(update={"port": port})})


def _make(lab: Lab, net: Net, router: Router) -> None:
    lab.fabric.realize_segment(net.network)
    lab.fabric.serve_dhcp(net.network, net.subnet, net.dhcp_port)
    lab.fabric.serve_metadata(net.network)
    lab.fabric.realize_router(router)
    lab.fabric.connect_outside(router)


def _delete(lab: Lab, net: Net, router: Router) -> None:
    lab.fabric.remove_router(router)
    lab.fabric.stop_metadata(net.network)
    lab.fabric.stop_dhcp(net.network)
    lab.fabric.remove_segment(net.network)


def _everything(lab: Lab) -> set[str]:
    """What there is, as the inventory, the kernel and the file system tell it."""
    links = {f"link {line.split()[1]}" for line in ip("-o", "link").splitlines()}
    spaces = {f"namespace {line.split()[0]}" for line in ip("netns").splitlines()}
    files = {f"file {path}" for path in lab.directory.rglob("*")}
    return links | spaces | files | {f"{each.kind} {each.name}" for each in lab.fabric.inventory()}

"""Where an instance may go and where it goes best: filters and weighers of hosts.

After Nova's `nova.scheduler.filters` and `nova.scheduler.weights`, but every filter says
in words why it refuses a host, and all refusals are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from blocks.errors import Unsupported
from blocks.hypervisor.wishes import lacking, wishes_of
from blocks.resources import Flavor, Host, Image
from blocks.state import free_resources

#: A host that has not reported for so long counts as down (Nova's `service_down_time`).
SILENT_AFTER = timedelta(seconds=300)


@dataclass(frozen=True)
class Demand:
    """What an instance asks of a host.

    Attributes:
        beside: Hosts of the VMs that it must be beside; empty means anywhere.
        apart: Hosts of the VMs that it must not be beside.
    """

    flavor: Flavor
    image: Image
    disk_gib: int
    zone: str | None
    forced_host: str | None
    beside: frozenset[str]
    apart: frozenset[str]
    time: datetime


Filter = Callable[[Host, Demand], str | None]


def compute_up(host: Host, demand: Demand) -> str | None:
    """ComputeFilter: enabled, and heard of lately."""
    if not host.enabled:
        return "it is disabled"
    if host.heartbeat_at is None or demand.time - host.heartbeat_at > SILENT_AFTER:
        return f"it has not been heard of since {host.heartbeat_at or 'ever'}"
    return None


def forced(host: Host, demand: Demand) -> str | None:
    """The host that an admin insists on."""
    if demand.forced_host not in (None, host.name):
        return f"the request forces {demand.forced_host}"
    return None


def zone(host: Host, demand: Demand) -> str | None:
    """AvailabilityZoneFilter."""
    if demand.zone not in (None, host.zone):
        return f"it is in zone {host.zone}, not in {demand.zone}"
    return None


def vcpus(host: Host, demand: Demand) -> str | None:
    """CoreFilter: also never more processors for one guest than the host really has."""
    if demand.flavor.vcpus > host.vcpus:
        return f"it has {host.vcpus} processors, {demand.flavor.vcpus} are asked for"
    return _enough(host, "vcpus", demand.flavor.vcpus)


def ram(host: Host, demand: Demand) -> str | None:
    """RamFilter: also never more memory for one guest than the host really has."""
    if demand.flavor.ram_mib > host.ram_mib:
        return f"it has {host.ram_mib} MiB of memory, {demand.flavor.ram_mib} are asked for"
    return _enough(host, "ram_mib", demand.flavor.ram_mib)


def disk(host: Host, demand: Demand) -> str | None:
    """DiskFilter."""
    return _enough(host, "disk_gib", demand.disk_gib)


def _enough(host: Host, what: str, wanted: int) -> str | None:
    free = free_resources(host)[what]
    return f"{what}: {free} free, {wanted} asked for" if wanted > free else None


def image_properties(host: Host, demand: Demand) -> str | None:
    """ImagePropertiesFilter: the image's architecture, and what its properties ask for."""
    offered = host.features.get("architectures", ["x86_64"])
    if demand.image.architecture not in offered:
        return f"it runs {', '.join(offered)}, the image is {demand.image.architecture}"
    try:
        wishes = wishes_of(demand.image)
    except Unsupported as error:
        return error.message
    if "firmwares" not in host.features:
        return None  # it has not reported since it was upgraded: step 24 tells
    lacks = lacking(
        wishes,
        host.features["firmwares"],
        host.features["disk_buses"],
        tpm=host.features["tpm"],
    )
    return f"it lacks {', '.join(lacks)}" if lacks else None


def affinity(host: Host, demand: Demand) -> str | None:
    """SameHostFilter and DifferentHostFilter."""
    if demand.beside and host.name not in demand.beside:
        return f"same_host asks for {', '.join(sorted(demand.beside))}"
    if host.name in demand.apart:
        return "different_host names a VM on it"
    return None


FILTERS: Sequence[tuple[str, Filter]] = (
    ("compute up", compute_up),
    ("forced host", forced),
    ("zone", zone),
    ("vcpus", vcpus),
    ("ram", ram),
    ("disk", disk),
    ("image properties", image_properties),
    ("affinity", affinity),
)


@dataclass(frozen=True)
class Filtered:
    """What the filters left over.

    Attributes:
        passed: The hosts that all filters let pass, by name.
        refused: A line for each refused host: which filter, and why.
        counts: How many hosts were left after each filter, in order.
    """

    passed: list[str]
    refused: list[str]
    counts: list[tuple[str, int]]


def apply_filters(hosts: Sequence[Host], demand: Demand) -> Filtered:
    """Send hosts through the filters, one filter after the other."""
    left = list(hosts)
    refused, counts = [], []
    for name, refuse in FILTERS:
        reasons = {host.name: refuse(host, demand) for host in left}
        refused += [f"{host}: {name}: {why}" for host, why in reasons.items() if why]
        left = [host for host in left if reasons[host.name] is None]
        counts.append((name, len(left)))
    return Filtered([host.name for host in left], refused, counts)


def weigh(hosts: Sequence[Host], multipliers: Mapping[str, float]) -> list[tuple[str, float]]:
    """Weigh hosts: each weigher normalised to 0..1 over the hosts, times its multiplier.

    Returns:
        (name, weight), the best first; equal weights by name, so that equal input gives
        an equal order.
    """
    raw = {
        "ram": [float(free_resources(host)["ram_mib"]) for host in hosts],
        "cpu": [float(free_resources(host)["vcpus"]) for host in hosts],
        "load_average": [host.load for host in hosts],
        "failures": [float(host.failures) for host in hosts],
    }
    totals = dict.fromkeys((host.name for host in hosts), 0.0)
    for name, values in raw.items():
        for host, value in zip(hosts, _normalised(values), strict=True):
            totals[host.name] += multipliers.get(name, 0.0) * value
    return sorted(totals.items(), key=lambda item: (-item[1], item[0]))


def _normalised(values: Sequence[float]) -> list[float]:
    low, high = min(values, default=0.0), max(values, default=0.0)
    return [(value - low) / (high - low) if high > low else 0.0 for value in values]

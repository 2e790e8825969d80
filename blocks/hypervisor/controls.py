"""Resource controls: what a flavor lets a guest use at most (step 43).

Processor and memory limits are cgroup limits set through libvirt, disk limits are QEMU's
own throttle, the network's rates are the kernel's (`port_rates`). Where the guest runs
they take effect at once; they are in the definition as well, for the next start.
"""

from __future__ import annotations

from typing import Any

import libvirt
from lxml import etree

from blocks import changes
from blocks.errors import Unsupported
from blocks.hypervisor import port_rates
from blocks.hypervisor.capabilities import cgroup_controllers
from blocks.hypervisor.domain_mark import keep_rate, rate_of
from blocks.resources import FlavorLimits

#: libvirt's VIR_DOMAIN_MEMORY_PARAM_UNLIMITED, which the Python binding does not have.
_MEMORY_UNLIMITED = 2**53 - 1

_PERIOD_US = 100_000
#: What QEMU itself may take beyond the guest's memory: device state, caches, its code.
_OVERHEAD_MIB = 512


def check(limits: FlavorLimits) -> None:
    """Whether this host can hold a guest to these limits.

    Raises:
        Unsupported: A processor limit is asked for and there is no cgroup controller `cpu`.
    """
    asks_cpu = limits.cpu_shares is not None or limits.cpu_percent is not None
    if asks_cpu and "cpu" not in cgroup_controllers():
        raise Unsupported(
            "the flavor limits the processor, but this host has no cgroup controller `cpu`",
            hint="mount it (v1), enable it (v2: cgroup.subtree_control), or take another flavor",
        )


def apply(domain: libvirt.virDomain, limits: FlavorLimits) -> None:
    """Set a domain's limits as far as they are not set already.

    Args:
        domain: A virDomain, running or not.
        limits: What to set; what is None is left alone.
    """
    name = str(domain.name())
    processor = _processor(limits)
    memory: dict[str, int] = {}
    if "memory" in cgroup_controllers():
        # A soft limit: it holds back a QEMU that leaks or was taken over when the host's
        # memory is short, and never a guest that uses what it was given.
        memory["soft_limit"] = int(domain.maxMemory()) + _OVERHEAD_MIB * 1024
    disk = _disk(limits)
    if limits.net_kib_s is not None and rate_of(domain) != limits.net_kib_s:
        keep_rate(domain, limits.net_kib_s, [flags for flags, _word in _layers(domain)])
    for flags, word in _layers(domain):
        if _differ(processor, domain.schedulerParametersFlags(flags)):
            domain.setSchedulerParametersFlags(processor, flags)
            words = [f"{key}={value}" for key, value in processor.items()]
            changes.record(
                f"Set the processor limits of {name}",
                ["virsh", "schedinfo", name, word, *words],
            )
        if _differ(memory, domain.memoryParameters(flags)):
            domain.setMemoryParameters(memory, flags)
            changes.record(
                f"Set the memory limit of {name}",
                ["virsh", "memtune", name, word, "--soft-limit", str(memory["soft_limit"])],
            )
        for target in _writable_disks(domain):
            if _differ(disk, domain.blockIoTune(target, flags)):
                domain.setBlockIoTune(target, disk, flags)
                words = [f"--{key.replace('_', '-')}={value}" for key, value in disk.items()]
                changes.record(
                    f"Set the limits of {name}'s disk {target}",
                    ["virsh", "blkdeviotune", name, target, word, *words],
                )


def read(domain: libvirt.virDomain) -> dict[str, Any]:
    """A domain's limits as they are: live where it runs, else as defined.

    Returns:
        `live` (bool); `cpu_shares`, `cpu_percent` of a processor for each vcpu,
        `memory_soft_limit_mib`; `disks`: for each target `iops`, `mib_s`; `interfaces`:
        for each tap `to_guest_kib_s`, `from_guest_kib_s`. None means no limit.
    """
    flags, _word = _layers(domain)[0]
    processor = domain.schedulerParametersFlags(flags)
    quota, period = processor.get("vcpu_quota", 0), processor.get("vcpu_period", 0)
    soft = domain.memoryParameters(flags).get("soft_limit", 0)
    unlimited = soft <= 0 or soft >= _MEMORY_UNLIMITED
    disks = {}
    for target in _writable_disks(domain):
        tune = domain.blockIoTune(target, flags)
        disks[target] = {
            "iops": tune.get("total_iops_sec") or None,
            "mib_s": (tune.get("total_bytes_sec") or 0) >> 20 or None,
        }
    interfaces = {}
    for tap in taps(domain):
        to_guest, from_guest = port_rates.rates(tap)
        interfaces[tap] = {"to_guest_kib_s": to_guest, "from_guest_kib_s": from_guest}
    return {
        "live": flags == libvirt.VIR_DOMAIN_AFFECT_LIVE,
        "cpu_shares": processor.get("cpu_shares") or None,
        "cpu_percent": quota * 100 // period if quota > 0 and period > 0 else None,
        "memory_soft_limit_mib": None if unlimited else soft // 1024,
        "disks": disks,
        "interfaces": interfaces,
    }


def ports(domain: libvirt.virDomain) -> tuple[list[str], int | None]:
    """A domain's tap devices, and the rate kept for them (KiB a second)."""
    return taps(domain), rate_of(domain)


def taps(domain: libvirt.virDomain) -> list[str]:
    """The tap devices that a domain's definition names."""
    return taps_of(str(domain.XMLDesc(0)))


def taps_of(xml: str) -> list[str]:
    """The tap devices that a definition names, in its order."""
    return [
        str(target.get("dev"))
        for target in etree.fromstring(xml).findall("devices/interface/target")
    ]


def _processor(limits: FlavorLimits) -> dict[str, int]:
    wanted: dict[str, int] = {}
    if limits.cpu_shares is not None:
        wanted["cpu_shares"] = limits.cpu_shares
    if limits.cpu_percent is not None:
        wanted["vcpu_period"] = _PERIOD_US
        wanted["vcpu_quota"] = _PERIOD_US * limits.cpu_percent // 100
    return wanted


def _disk(limits: FlavorLimits) -> dict[str, int]:
    wanted: dict[str, int] = {}
    if limits.disk_iops is not None:
        wanted["total_iops_sec"] = limits.disk_iops
    if limits.disk_mib_s is not None:
        wanted["total_bytes_sec"] = limits.disk_mib_s << 20
    return wanted


def _differ(wanted: dict[str, int], present: dict[str, Any]) -> bool:
    return any(present.get(key) != value for key, value in wanted.items())


def _layers(domain: libvirt.virDomain) -> list[tuple[int, str]]:
    """Where to set a limit, the one that counts now first.

    One after the other, as the binding reads the present values' types with the same
    flags, and reading takes only one of them.
    """
    layers = [(libvirt.VIR_DOMAIN_AFFECT_CONFIG, "--config")] if domain.isPersistent() else []
    if domain.isActive():
        layers.insert(0, (libvirt.VIR_DOMAIN_AFFECT_LIVE, "--live"))
    return layers


def _writable_disks(domain: libvirt.virDomain) -> list[str]:
    xml = etree.fromstring(str(domain.XMLDesc(0)))
    return [
        str(disk.find("target").get("dev"))  # type: ignore[union-attr]
        for disk in xml.findall("devices/disk")
        if disk.find("readonly") is None
    ]

"""What this host's hypervisor can do: for the scheduler (step 12) and for step 24."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lxml import etree

from blocks.errors import HostFault, InvalidRequest, Unsupported
from blocks.hypervisor.connection import Connection
from blocks.hypervisor.domain_xml import DOMAIN_TYPE

Accelerator = Literal["kvm", "tcg"]

KVM_DEVICE = Path("/dev/kvm")
ARCHITECTURE = "x86_64"
MACHINE = "q35"
_CONTROLLERS_V2 = Path("/sys/fs/cgroup/cgroup.controllers")


@dataclass(frozen=True)
class Capabilities:
    """What libvirt and QEMU offer for one accelerator.

    Attributes:
        machines: Machine types and their aliases (`q35`, `pc-q35-7.2`).
        cpu_modes: Modes that libvirt says work (`custom`, `host-model`, ...).
        cpu_models: Models that run here without losing a feature.
        rng_backends: virtio-rng's backends.
        max_vcpus: The most that the machine type takes.
        firmwares: Kinds of firmware that libvirt finds (`bios`, `efi`).
        tpm: Whether a guest can have a TPM 2.0 of its own (swtpm).
    """

    accelerator: Accelerator
    emulator: Path
    libvirt: str
    qemu: str
    machines: frozenset[str]
    cpu_modes: frozenset[str]
    cpu_models: tuple[str, ...]
    disk_buses: frozenset[str]
    rng_backends: frozenset[str]
    max_vcpus: int
    firmwares: frozenset[str] = frozenset()
    tpm: bool = False


def choose_accelerator(wanted: str, offered: frozenset[str]) -> Accelerator:
    """The accelerator to use.

    `kvm` only if /dev/kvm opens *and* the processor has vmx or svm *and* libvirt offers
    it: on some virtual machines /dev/kvm opens, and then guests hang in it.

    Args:
        wanted: `auto`, or `kvm` or `tcg`, which insist.
        offered: libvirt's domain types (`qemu`, `kvm`).

    Raises:
        Unsupported: What is insisted on is not there.
        InvalidRequest: `wanted` is none of the three.
    """
    if wanted not in ("auto", "kvm", "tcg"):
        raise InvalidRequest(f"the accelerator {wanted!r} is none of auto, kvm, tcg")
    if wanted != "tcg":
        missing = _kvm_missing(offered)
        if missing is None:
            return "kvm"
        if wanted == "kvm":
            raise Unsupported(
                f"KVM was asked for, but {missing}",
                hint="set FIFTY_ACCELERATOR to tcg or auto, or use another host",
            )
    if DOMAIN_TYPE["tcg"] not in offered:
        raise Unsupported("libvirt offers no QEMU emulation of x86_64 guests")
    return "tcg"


def _kvm_missing(offered: frozenset[str]) -> str | None:
    """What keeps KVM from being used, or None."""
    if DOMAIN_TYPE["kvm"] not in offered:
        return "libvirt does not offer it"
    flags = set(Path("/proc/cpuinfo").read_text().split())
    if not flags & {"vmx", "svm"}:
        return "the processor has neither vmx nor svm"
    try:
        os.close(os.open(KVM_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"{KVM_DEVICE} does not open: {error.strerror}"
    return None


def unusual_kvm_device(uid: int, gid: int) -> str | None:
    """Why libvirt would ask QEMU for its capabilities again and again, if so.

    Where QEMU could open /dev/kvm when it was probed, but its user may not by the file's
    mode, libvirt takes its own cache of capabilities for outdated at every look: a
    define then takes a minute and a half instead of 3 ms, a start 4 s more.

    Args:
        uid: QEMU's user.
        gid: QEMU's group.

    Returns:
        One line with the remedy, or None where all is well.
    """
    try:
        found = KVM_DEVICE.stat()
    except FileNotFoundError:
        return None
    mode = stat.S_IMODE(found.st_mode)
    groups = {gid, *_groups_of(uid)}
    allowed = (
        (mode & 0o006) == 0o006
        or (found.st_gid in groups and (mode & 0o060) == 0o060)
        or (found.st_uid == uid and (mode & 0o600) == 0o600)
    )
    if allowed:
        return None
    return (
        f"{KVM_DEVICE} has mode {mode:04o}, which makes every libvirt call slow: "
        f"chgrp kvm {KVM_DEVICE}; chmod 660 {KVM_DEVICE}"
    )


def _groups_of(uid: int) -> list[int]:
    """All groups of a user, as libvirt gives them to QEMU."""
    try:
        user = pwd.getpwuid(uid)
    except KeyError:
        return []
    return os.getgrouplist(user.pw_name, user.pw_gid)


def read_capabilities(connection: Connection, wanted: str) -> Capabilities:
    """Ask libvirt what this host can do.

    Raises:
        Unsupported: The accelerator or x86_64 guests are not there.
    """
    host = etree.fromstring(connection.call("ask for capabilities", lambda c: c.getCapabilities()))
    architecture = host.find(f"guest/arch[@name='{ARCHITECTURE}']")
    if architecture is None:
        raise Unsupported(f"libvirt offers no {ARCHITECTURE} guests on this host")
    offered = frozenset(str(item.get("type")) for item in architecture.findall("domain"))
    accelerator = choose_accelerator(wanted, offered)
    emulator = architecture.findtext("emulator") or ""
    domain = etree.fromstring(
        connection.call(
            "ask for domain capabilities",
            lambda c: c.getDomainCapabilities(
                emulator, ARCHITECTURE, MACHINE, DOMAIN_TYPE[accelerator], 0
            ),
        )
    )
    machines = architecture.findall("machine")
    vcpu = domain.find("vcpu")
    return Capabilities(
        accelerator=accelerator,
        emulator=Path(emulator),
        libvirt=_version(connection.call("ask for libvirt's version", lambda c: c.getLibVersion())),
        qemu=_version(connection.call("ask for QEMU's version", lambda c: c.getVersion())),
        machines=frozenset(
            name for item in machines for name in (item.text, item.get("canonical")) if name
        ),
        cpu_modes=frozenset(
            str(mode.get("name")) for mode in domain.findall("cpu/mode[@supported='yes']")
        ),
        cpu_models=tuple(
            model.text
            for model in domain.findall("cpu/mode[@name='custom']/model[@usable='yes']")
            if model.text
        ),
        disk_buses=_enum(domain, "devices/disk/enum[@name='bus']"),
        rng_backends=_enum(domain, "devices/rng/enum[@name='backendModel']"),
        max_vcpus=int(vcpu.get("max", "1")) if vcpu is not None else 1,
        firmwares=_enum(domain, "os/enum[@name='firmware']"),
        tpm="emulator" in _enum(domain, "devices/tpm[@supported='yes']/enum[@name='backendModel']"),
    )


def _enum(domain: etree._Element, path: str) -> frozenset[str]:
    return frozenset(value.text for value in domain.findall(f"{path}/value") if value.text)


def _version(number: int) -> str:
    """The form of libvirt's version numbers: 1,000,000 * major + 1,000 * minor + release."""
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def cgroup_controllers() -> frozenset[str]:
    """The cgroup controllers that this host mounts (v1) or enables (v2)."""
    if _CONTROLLERS_V2.exists():
        return frozenset(_CONTROLLERS_V2.read_text().split())
    mounted: set[str] = set()
    for line in Path("/proc/mounts").read_text().splitlines():
        fields = line.split()
        if fields[2] == "cgroup":
            mounted.update(fields[3].split(","))
    return frozenset(mounted & {"cpu", "memory", "blkio", "cpuset"})


def node(connection: Connection) -> tuple[int, int]:
    """The host's processors and its memory in MiB."""
    info: Mapping[int, Any] = dict(
        enumerate(connection.call("ask for the host's size", lambda c: c.getInfo()))
    )
    vcpus, ram_mib = int(info[2]), int(info[1])
    if vcpus < 1 or ram_mib < 1:
        raise HostFault(f"libvirt says the host has {vcpus} processors and {ram_mib} MiB")
    return vcpus, ram_mib

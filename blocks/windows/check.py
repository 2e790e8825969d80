"""The static check of a disk with Windows: the seed's points, by the registry's hives.

What only a running Windows could tell (is it activated, are all updates in) is told as far as
its files go, or as unknown.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from blocks.errors import UnsafeImage
from blocks.images.check.report import Finding, Notes
from blocks.windows.disk import WindowsFiles
from blocks.windows.hives import Hive

_CLOUDBASE_CONF = "Program Files/Cloudbase Solutions/Cloudbase-Init/conf/cloudbase-init.conf"
#: Files that are looked at beside the hives; see `open_windows`.
WANTED = (_CLOUDBASE_CONF,)
_CURRENT = r"Microsoft\Windows NT\CurrentVersion"
_STATE = r"Microsoft\Windows\CurrentVersion\Setup\State"
_GENERALIZED = "IMAGE_STATE_GENERALIZE_RESEAL_TO_OOBE"
_HIGH_PERFORMANCE = "8c5e7fda-e8bf-4a96-9a85-a6e23a8c635c"
#: BCD elements: EMS for a boot entry, and for the boot manager.
_EMS = ("260000b0", "16000020")
_BOOT_START, _SYSTEM_START, _AUTO_START, _DEMAND_START = range(4)
_GUID = re.compile(r"\{[0-9A-Fa-f-]{36}\}")

Look = Callable[["_Windows", Notes], None]


class _Windows:
    """The hives, with what several points ask for."""

    def __init__(self, files: WindowsFiles) -> None:
        self.system = files.hives["SYSTEM"]
        self.software = files.hives["SOFTWARE"]
        self.boot: Hive | None = files.hives.get("BCD")
        self.texts = files.texts
        number = self.system.number("Select", "Current")
        if number is None or not 1 <= number <= 999:
            raise UnsafeImage("the SYSTEM hive names no current control set")
        self.control_set = f"ControlSet{number:03}"

    def control(self, key: str, value: str) -> str | None:
        """A value of the current control set's `Control`."""
        return self.system.text(rf"{self.control_set}\Control\{key}", value)

    def start_of(self, service: str) -> int | None:
        """When a service or driver starts; None where it is not there."""
        return self.system.number(rf"{self.control_set}\Services\{service}", "Start")


@dataclass(frozen=True)
class _Point:
    name: str
    title: str
    look: Look


_POINTS: list[_Point] = []


def _point(name: str, title: str) -> Callable[[Look], Look]:
    def add(look: Look) -> Look:
        _POINTS.append(_Point(name, title, look))
        return look

    return add


def look_at_windows(files: WindowsFiles) -> tuple[Finding, ...]:
    """Look at every point; what cannot be read is told as unknown."""
    windows = _Windows(files)
    findings = []
    for point in _POINTS:
        notes = Notes()
        try:
            point.look(windows, notes)
        except UnsafeImage as error:
            notes.unknown(error.message, error.hint)
        findings.append(notes.finding(point.name, point.title))
    return tuple(findings)


@_point("windows", "it is a Windows whose edition and build are told")
def _windows(windows: _Windows, notes: Notes) -> None:
    name = windows.software.text(_CURRENT, "ProductName")
    build = windows.software.text(_CURRENT, "CurrentBuild")
    if not name or not build:
        notes.fail("SOFTWARE: no ProductName or CurrentBuild", "is the installation complete?")
        return
    notes.saw(f"{name}, build {build}")
    edition = windows.software.text(_CURRENT, "EditionID") or ""
    if "eval" in edition.lower():
        notes.warn(f"EditionID: {edition}", "an evaluation edition stops after its time")


@_point("virtio-disk", "the driver of virtio disks starts with the kernel")
def _virtio_disk(windows: _Windows, notes: Notes) -> None:
    starts = {name: windows.start_of(name) for name in ("viostor", "vioscsi")}
    for name, start in starts.items():
        if start is not None:
            notes.saw(f"Services\\{name}: Start {start}")
    if starts["viostor"] is None:
        notes.fail("Services\\viostor is not there", "install virtio-win's viostor")
    elif starts["viostor"] != _BOOT_START:
        notes.fail("viostor does not start at boot", "set its Start to 0: it stops with 0x7B else")


@_point("virtio-network", "the driver of virtio interfaces is there")
def _virtio_network(windows: _Windows, notes: Notes) -> None:
    start = windows.start_of("netkvm")
    if start is None:
        notes.fail("Services\\netkvm is not there", "install virtio-win's NetKVM")
    elif start > _DEMAND_START:
        notes.fail(f"Services\\netkvm: Start {start}", "it is disabled: set its Start to 3")
    else:
        notes.saw(f"Services\\netkvm: Start {start}")


@_point("remote-desktop", "Remote Desktop is on")
def _remote_desktop(windows: _Windows, notes: Notes) -> None:
    denied = windows.control("Terminal Server", "fDenyTSConnections")
    if denied == "0":
        notes.saw("Terminal Server: fDenyTSConnections 0")
    else:
        notes.fail(f"Terminal Server: fDenyTSConnections {denied}", "set it to 0")
    if windows.start_of("TermService") not in (_AUTO_START, _DEMAND_START):
        notes.fail("the service TermService does not start", "set its Start to 3")


@_point("ssh-server", "an SSH server starts with it")
def _ssh_server(windows: _Windows, notes: Notes) -> None:
    _service(windows, notes, "sshd", "Add-WindowsCapability -Name OpenSSH.Server")


@_point("cloudbase-init", "cloudbase-init starts with it, and reads the config drive")
def _cloudbase_init(windows: _Windows, notes: Notes) -> None:
    _service(windows, notes, "cloudbase-init", "install cloudbase-init")
    conf = windows.texts.get(_CLOUDBASE_CONF)
    if conf is None:
        notes.fail("cloudbase-init.conf is not there", "install cloudbase-init")
        return
    said = re.search(r"^[ \t]*metadata_services[ \t]*=[ \t]*(.*)$", conf, re.MULTILINE)
    if said is None:
        notes.saw("cloudbase-init.conf names no metadata_services: all are tried")
    elif "configdrive" in said[1].lower():
        notes.saw(f"metadata_services = {said[1].strip()}")
    else:
        notes.fail(f"metadata_services = {said[1].strip()}", "add ConfigDriveService")


@_point("serial-console", "its boot loader speaks on the serial console (EMS)")
def _serial_console(windows: _Windows, notes: Notes) -> None:
    if windows.boot is None:
        notes.unknown("the boot store is on an EFI partition, or missing: it was not read")
        return
    for entry in windows.boot.keys("Objects"):
        for element in _EMS if _GUID.fullmatch(entry) else ():
            said = windows.boot.text(rf"Objects\{entry}\Elements\{element}", "Element")
            if said and said.startswith("\x01"):
                notes.saw(f"BCD: {entry} has EMS on ({element})")
                return
    notes.warn("BCD: EMS is off in every entry", "bcdedit /ems {current} on")


@_point("updates", "updates were installed")
def _updates(windows: _Windows, notes: Notes) -> None:
    results = r"Microsoft\Windows\CurrentVersion\WindowsUpdate\Auto Update\Results\Install"
    last = windows.software.text(results, "LastSuccessTime")
    revision = windows.software.number(_CURRENT, "UBR")
    if last:
        notes.saw(f"last update: {last}")
    if revision:
        notes.saw(f"update build revision {revision}")
    elif not last:
        notes.unknown("neither a last update nor a revision is told", "run Windows Update")


@_point("network", "no question about the network, and addresses by DHCP")
def _network(windows: _Windows, notes: Notes) -> None:
    key = rf"{windows.control_set}\Control\Network\NewNetworkWindowOff"
    if windows.system.exists(key):
        notes.saw("Control\\Network\\NewNetworkWindowOff is there")
    else:
        notes.warn(
            "Control\\Network\\NewNetworkWindowOff is not there", f"reg add HKLM\\SYSTEM\\{key}"
        )
    interfaces = rf"{windows.control_set}\Services\Tcpip\Parameters\Interfaces"
    for name in windows.system.keys(interfaces):
        if not _GUID.fullmatch(name):
            continue
        dhcp = windows.system.number(rf"{interfaces}\{name}", "EnableDHCP")
        address = windows.system.text(rf"{interfaces}\{name}", "IPAddress")
        if dhcp == 0 and address:
            words = " ".join(address.split())
            notes.fail(f"the interface {name} has the fixed address {words}", "set it to DHCP")


@_point("power", "it never sleeps")
def _power(windows: _Windows, notes: Notes) -> None:
    plan = windows.control(r"Power\User\PowerSchemes", "ActivePowerScheme")
    if (plan or "").lower() == _HIGH_PERFORMANCE:
        notes.saw("the power plan is high performance")
    else:
        notes.warn(f"the power plan is {plan}", f"powercfg /setactive {_HIGH_PERFORMANCE}")
    if windows.control("Power", "HibernateEnabled") not in (None, "0"):
        notes.warn("hibernation is on: its file is as large as memory", "powercfg /hibernate off")


@_point("generalized", "sysprep has generalized it")
def _generalized(windows: _Windows, notes: Notes) -> None:
    state = windows.software.text(_STATE, "ImageState")
    if state == _GENERALIZED:
        notes.saw(f"ImageState: {state}")
    else:
        notes.fail(f"ImageState: {state}", "sysprep /generalize /oobe /shutdown")


@_point("passwords", "nobody logs in by itself, and no password is left")
def _passwords(windows: _Windows, notes: Notes) -> None:
    logon = rf"{_CURRENT}\Winlogon"
    if windows.software.text(logon, "DefaultPassword") is not None:
        notes.fail("Winlogon holds a DefaultPassword", "remove it: every VM would share it")
    if windows.software.text(logon, "AutoAdminLogon") == "1":
        notes.fail("Winlogon: AutoAdminLogon 1", "set it to 0")
    notes.nothing("Winlogon")


def _service(windows: _Windows, notes: Notes, service: str, remedy: str) -> None:
    start = windows.start_of(service)
    if start is None:
        notes.fail(f"there is no service {service}", remedy)
    elif start != _AUTO_START:
        notes.fail(f"Services\\{service}: Start {start}", "set it to 2: it starts by itself")
    else:
        notes.saw(f"Services\\{service}: Start {start}")

"""The tests that are decided by what a guest answers from inside; see `probe`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from blocks.images.certification.certificate import Notes, Outcome

GIB = 1024**3
#: A file system's own tables, a boot and an EFI partition take some of the disk.
_LEAST_OF_DISK = 0.8
#: Slower than that is not the clock, but the zone that somebody took it for.
_CLOCK_S = 300
#: What systemd, X and their like keep in /tmp of a machine that runs.
_OF_THE_SYSTEM = re.compile(
    r"systemd-private-\S+|\.(X11|ICE|XIM|font|Test)-unix|snap-private-tmp|vmware-root_\S+|"
    r"\.X\d+-lock|lost\+found"
)
_STABLE = re.compile(r"(UUID|LABEL|PARTUUID|PARTLABEL)=|/dev/disk/by-|/dev/mapper/")
_FIELDS = 4
#: Of a number that a guest tells: one of thousands is none that can be calculated with.
_DIGITS = 18


@dataclass(frozen=True)
class Wanted:
    """What the trial VM was made to be.

    Attributes:
        name: Its name.
        disk_gib: Its flavor's disk.
        zone: The time zone that it should be in.
        at: The host's time when the guest was asked.
        path: Where the injected file is.
        injected: What it holds; None where none could be injected.
        why_not_injected: Why.
        script: What the user data's script wrote.
        marker: What the end of the image's own first-boot work looks like on the console, a
            regular expression that was seen there; empty for none.
    """

    name: str
    disk_gib: int
    zone: str
    at: datetime
    path: str
    injected: str | None
    why_not_injected: str
    script: str
    marker: str


def injected(said: Mapping[str, str], wanted: Wanted) -> Outcome:
    """Whether the file that step 30 wrote into the disk is there after the boot."""
    notes = Notes("injected-file")
    if wanted.injected is None:
        return notes.not_applicable(wanted.why_not_injected)
    content, _newline, code = said.get("injected", "").rpartition("\nexit ")
    if code == "0" and content == wanted.injected:
        notes.saw(f"{wanted.path} holds what was written into it before the boot: {content}")
    else:
        hint = "look for what removes or changes it at boot, or mounts something over it"
        notes.fail(f"{wanted.path} was to hold {wanted.injected}", hint)
        notes.fail(f"read in the guest: {said.get('injected') or 'nothing'}")
    return notes.outcome()


def first_boot(said: Mapping[str, str], wanted: Wanted) -> Outcome:
    """Whether cloud-init, or the image's own like of it, has run, and with what result."""
    notes = Notes("cloud-init")
    hint = "what the image has in cloud-init's place has to read the config drive and to run it"
    if said.get("agent"):
        _cloud_init(said, notes)
        hint = "cloud-init's module scripts-user has to run it, in its final stage"
    elif wanted.marker:
        told = f"its end was told on the console: {wanted.marker}"
        notes.saw(f"the image has no cloud-init, but a program of its own; {told}")
    else:
        notes.saw("the image has no cloud-init")
    if said.get("script", "").strip() == wanted.script:
        notes.saw("the script in the user data was run")
    else:
        left = said.get("script") or "nothing"
        notes.fail(f"the script in the user data was not run; read from its file: {left}", hint)
    return notes.outcome()


def _cloud_init(said: Mapping[str, str], notes: Notes) -> None:
    result = _json(said.get("result", "")).get("v1")
    if not isinstance(result, dict):
        notes.fail(
            f"cloud-init is there, and has not come to an end: {said.get('status') or 'no status'}",
            "`cloud-init status --long` in a guest tells where it stands",
        )
        return
    errors = result.get("errors") or []
    notes.saw(f"cloud-init is done, by the data source {result.get('datasource')}")
    for error in errors:
        notes.fail(f"its error: {error}", "/var/log/cloud-init.log in a guest tells more")
    if "None" in str(result.get("datasource")):
        notes.fail("it has found no data source", "ConfigDrive has to be in its datasource_list")


def host_name(said: Mapping[str, str], wanted: Wanted) -> Outcome:
    """Whether the guest is called as the VM."""
    notes = Notes("host-name")
    name = said.get("hostname", "").strip()
    if name.partition(".")[0] == wanted.name:
        notes.saw(f"the command hostname says {name}, as the VM is called")
    else:
        notes.fail(
            f"the VM is called {wanted.name}, and the command hostname says {name or 'nothing'}",
            "cloud-init's module set_hostname sets it, unless preserve_hostname is true",
        )
    return notes.outcome()


def time_zone(said: Mapping[str, str], wanted: Wanted) -> Outcome:
    """Whether the guest's clock shows the right time, in the right zone."""
    notes = Notes("time-zone")
    words = said.get("clock", "").split()
    try:
        seconds, offset = int(words[0][:_DIGITS]), words[1]
    except (IndexError, ValueError):
        told = said.get("clock") or "nothing"
        notes.fail(f"the command date says {told}", "it has to know %s, %z and %Z")
        return notes.outcome()
    right = wanted.at.astimezone(ZoneInfo(wanted.zone)).strftime("%z")
    if offset == right:
        notes.saw(f"its clock shows {' '.join(words[1:])}, which is right for {wanted.zone}")
    else:
        notes.fail(
            f"its clock shows {' '.join(words[1:])}; {wanted.zone} was expected, which is {right}",
            "set /etc/localtime in the image; or certify it with --timezone and the zone it is for",
        )
    late = seconds - wanted.at.timestamp()
    if abs(late) > _CLOCK_S:
        notes.fail(
            f"its clock is {late:+.0f} s off the host's",
            "the guest takes the hardware clock for local time: it is UTC",
        )
    return notes.outcome()


def root_size(said: Mapping[str, str], wanted: Wanted) -> Outcome:
    """Whether the root file system has grown to the flavor's disk."""
    notes = Notes("root-size")
    found = re.search(r"^\S+ +(\d{1,18}) +\d+ +\d+ +\S+ +/$", said.get("root", ""), re.MULTILINE)
    if found is None:
        told = said.get("root") or "nothing"
        notes.fail(f"the command df says {told}", "it has to know -P and -k")
        return notes.outcome()
    size = int(found[1]) * 1024
    words = f"{size / GIB:.2f} GiB of the flavor's {wanted.disk_gib} GiB"
    if size >= _LEAST_OF_DISK * wanted.disk_gib * GIB:
        notes.saw(words)
    else:
        notes.fail(
            words,
            "at boot the partition has to grow (cloud-init's module growpart), and then the file "
            "system (its module resizefs)",
        )
    return notes.outcome()


def fstab(said: Mapping[str, str], wanted: Wanted) -> Outcome:
    """Whether /etc/fstab is clean, and all that it names is mounted."""
    del wanted
    notes = Notes("fstab")
    mounted = {words[1]: words for line in _lines(said, "mounts") if len(words := line.split()) > 3}
    root = mounted.get("/")
    if root is None:
        notes.fail("nothing is mounted on /, says /proc/mounts", "/proc has to be mounted")
    elif "rw" not in root[3].split(","):
        notes.fail(f"/ is mounted read-only: {' '.join(root)}", "its fsck failed, or fstab says so")
    entries = [line for line in _lines(said, "fstab") if not line.lstrip().startswith("#")]
    for line in entries:
        _entry(line, mounted, notes)
    told, _exit, code = said.get("mount-a", "").rpartition("exit ")
    if code != "0":
        notes.fail(
            f"the command mount -a ends with {code or 'nothing'}: {told}",
            "correct the entry that it names, or take it out",
        )
    elif entries:
        notes.saw(f"the command mount -a has nothing to complain of; {len(entries)} entries")
    else:
        notes.saw("/etc/fstab has no entry, and / can be written to")
    return notes.outcome()


def _entry(line: str, mounted: Mapping[str, list[str]], notes: Notes) -> None:
    """One line of fstab(5)."""
    fields = line.split()
    if len(fields) < _FIELDS:
        notes.fail(f"not an entry: {line}", "fstab(5): device, directory, type, options")
        return
    device, directory, kind, options = fields[:_FIELDS]
    if device.startswith("/dev/") and not _STABLE.match(device):
        notes.fail(
            f"this entry names a device: {line}",
            "devices change their names: write UUID= or LABEL= and the file system's own",
        )
    if kind == "swap" or directory in ("none", "swap") or "noauto" in options.split(","):
        return
    if directory not in mounted:
        notes.fail(
            f"this entry is not mounted: {line}",
            "its device is not there, or the entry is wrong: correct it, or take it out",
        )


def tmp(said: Mapping[str, str], wanted: Wanted) -> Outcome:
    """Whether /tmp is empty, but for what the system itself keeps there."""
    del wanted
    notes = Notes("tmp")
    if "tmp" not in said:
        return notes.outcome()
    names = _lines(said, "tmp")
    left = [name for name in names if not _OF_THE_SYSTEM.fullmatch(name)]
    if left:
        notes.fail(
            f"it holds what is not the system's, {len(left)} in all: {', '.join(left[:8])}",
            "empty /tmp before the image is made; or see to what writes there at boot",
        )
    else:
        own = f"it holds nothing but the system's own: {', '.join(names)}"
        notes.saw(own if names else "it is empty")
    return notes.outcome()


#: Those decided from inside.
INSIDE: Mapping[str, Callable[[Mapping[str, str], Wanted], Outcome]] = {
    "injected-file": injected,
    "cloud-init": first_boot,
    "root-size": root_size,
    "host-name": host_name,
    "time-zone": time_zone,
    "fstab": fstab,
    "tmp": tmp,
}


def _lines(said: Mapping[str, str], name: str) -> list[str]:
    return [line for line in said.get(name, "").splitlines() if line.strip()]


def _json(text: str) -> dict[str, object]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}

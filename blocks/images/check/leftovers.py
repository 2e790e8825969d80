"""Whether anything of the machine that it was made on is left: identity, secrets, state."""

from __future__ import annotations

import re
from collections.abc import Iterator

from blocks.images.check.guest import Guest
from blocks.images.check.points import Points
from blocks.images.check.report import Notes
from blocks.images.generalising import HISTORIES

LEFTOVERS = Points()

_GENERALISE = "`fifty image edit --generalise` removes it"
_HOST_KEY = re.compile(r"ssh_host_\w+_key(?:\.pub)?|dropbear_\w+_host_key|host_key")
_LEASES = (
    "/var/lib/dhcp",
    "/var/lib/dhclient",
    "/var/lib/NetworkManager",
    "/run/systemd/netif/leases",
)
_PRIVATE_KEY = re.compile(r"id_(?:rsa|dsa|ecdsa|ed25519)(?:_sk)?")


@LEFTOVERS.point("machine-id", "The machine id is made at the first boot")
def machine_id(guest: Guest, notes: Notes) -> None:
    """/etc/machine-id is empty: guests with the same one take the same address by DHCP."""
    path = "/etc/machine-id"
    text = guest.access.text(path)
    if text is None:
        notes.saw(f"{path} is not there")
        if guest.access.exists("/usr/lib/systemd/systemd"):
            notes.warn("systemd then takes every boot for a first one", f"make {path} empty")
    elif text.strip() in ("", "uninitialized"):
        notes.saw(f"{path}: {text.strip() or 'empty'}")
    else:
        notes.fail(f"{path}: {text.strip()}", _GENERALISE)
    other = "/var/lib/dbus/machine-id"
    node = guest.access.find(other, follow=False)
    if node is not None and node.is_file and node.size:
        notes.fail(f"{other} is there, of its own", _GENERALISE)


@LEFTOVERS.point("host-keys", "SSH host keys are made at the first boot")
def host_keys(guest: Guest, notes: Notes) -> None:
    """A host key in an image is known to everybody who has the image."""
    for folder in ("/etc/ssh", "/etc/dropbear"):
        for name in guest.access.names(folder):
            if _HOST_KEY.fullmatch(name):
                notes.fail(f"{folder}/{name}", _GENERALISE)
    notes.nothing("/etc/ssh, /etc/dropbear")


@LEFTOVERS.point("passwords", "No account has a password")
def passwords(guest: Guest, notes: Notes) -> None:
    """Not in /etc/shadow, and not in /etc/passwd; an empty one is worse than a known one."""
    for path in ("/etc/shadow", "/etc/passwd", "/etc/shadow-", "/etc/gshadow"):
        for line in (guest.access.text(path) or "").splitlines():
            user, _, rest = line.partition(":")
            word = rest.partition(":")[0]
            if word.startswith("$") or re.fullmatch(r"[./0-9A-Za-z]{13}", word):
                notes.fail(f"{path}: {user} has a password", f"passwd -l {user}")
            elif not word and path in ("/etc/shadow", "/etc/passwd") and rest:
                notes.fail(f"{path}: {user} has an empty password", f"passwd -l {user}")
    notes.nothing("/etc/shadow, /etc/passwd, /etc/gshadow")


@LEFTOVERS.point("keys", "Nobody's keys are in it")
def keys(guest: Guest, notes: Notes) -> None:
    """No authorized_keys that let somebody in, no private keys that somebody forgot."""
    for home in _homes(guest):
        for name in guest.access.names(f"{home}/.ssh"):
            path = f"{home}/.ssh/{name}"
            if name.startswith("authorized_keys"):
                lines = (guest.access.text(path) or "").splitlines()
                count = sum(1 for line in lines if line.strip() and not line.startswith("#"))
                if count:
                    notes.fail(f"{path}: {count} key(s)", "remove it: cloud-init writes its own")
            elif _PRIVATE_KEY.fullmatch(name):
                notes.fail(f"{path} is a private key", "remove it, and use that key no more")
    notes.nothing("/root/.ssh, /home/*/.ssh")


@LEFTOVERS.point("state", "Nothing of an earlier life is in it")
def state(guest: Guest, notes: Notes) -> None:
    """cloud-init's state, DHCP leases, logs, histories, files in /tmp."""
    if guest.access.names("/var/lib/cloud/instances"):
        notes.fail("/var/lib/cloud/instances: cloud-init has run", _GENERALISE)
    for folder in _LEASES:
        for name in guest.access.names(folder):
            if "lease" in name:
                notes.warn(f"{folder}/{name}", _GENERALISE)
    if guest.access.exists("/var/lib/systemd/random-seed"):
        notes.warn("/var/lib/systemd/random-seed: the same for all VMs", _GENERALISE)
    for name in guest.access.names("/var/log/journal"):
        notes.warn(f"/var/log/journal/{name}", _GENERALISE)
    for home in _homes(guest):
        for name in HISTORIES:
            if guest.access.exists(f"{home}/{name}"):
                notes.warn(f"{home}/{name}", "remove it")
    for folder in ("/tmp", "/var/tmp"):  # noqa: S108 - the guest's
        for name in guest.access.names(folder):
            notes.warn(f"{folder}/{name}", "remove it")
    notes.nothing("/var/lib/cloud, /var/log/journal, /tmp, leases, random seed, histories")


def _homes(guest: Guest) -> Iterator[str]:
    """The home directories that people have."""
    yield "/root"
    for name in guest.access.names("/home"):
        yield f"/home/{name}"

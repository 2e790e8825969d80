"""Generalising: taking out of a guest all that makes it one certain machine.

What `virt-sysprep` and `cloud-init clean` do, without booting: the next machine that is made
from it makes its own identity. What a person put there stays, but for keys that let somebody
in, and what a shell remembers of them.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator

from blocks.images.access.base import Access, Change, Node, Put, Remove

#: Removed, by directory and name; a directory goes with all below.
_PATTERNS: tuple[tuple[str, str, str], ...] = (
    ("host keys", "/etc/ssh", "ssh_host_*"),
    ("host keys", "/etc/dropbear", "*host_key*"),
    ("DHCP leases", "/var/lib/dhcp", "*"),
    ("DHCP leases", "/var/lib/dhclient", "*"),
    ("DHCP leases", "/var/lib/NetworkManager", "*lease*"),
    ("network names", "/etc/udev/rules.d", "*-persistent-net.rules"),
    ("network names", "/etc/udev/rules.d", "*-persistent-cd.rules"),
    ("network setup", "/etc/netplan", "*cloud-init*"),
    ("network setup", "/etc/network/interfaces.d", "*cloud-init*"),
    ("network setup", "/etc/systemd/network", "*cloud-init*"),
    ("network setup", "/etc/NetworkManager/system-connections", "cloud-init*"),
    ("random seed", "/var/lib/systemd", "random-seed"),
    ("random seed", "/var/lib/systemd", "credential.secret"),
    ("logs", "/var/log/journal", "*"),
    ("temporary files", "/tmp", "*"),  # noqa: S108 - the guest's
    ("temporary files", "/var/tmp", "*"),  # noqa: S108
    ("identity", "/etc", "instance-id"),
)
#: What cloud-init keeps of an instance; `seed` is the image's own.
_CLOUD = "/var/lib/cloud"
_KEPT_OF_CLOUD = frozenset({"seed"})
#: What programs note of people's work, in their home directories.
HISTORIES = (
    *(".bash_history", ".zsh_history", ".ash_history", ".sh_history", ".python_history"),
    *(".mysql_history", ".psql_history", ".sqlite_history", ".node_repl_history"),
    *(".lesshst", ".viminfo"),
)
_NEVER = frozenset({"lost+found"})
_LOGS = "/var/log"
_MACHINE_ID = "/etc/machine-id"
_MACHINE_ID_OF_DBUS = "/var/lib/dbus/machine-id"


def generalising(guest: Access) -> list[tuple[str, Change]]:
    """What has to be changed in a guest so that it is no certain machine any more.

    Args:
        guest: Its files.

    Returns:
        For each change what it is about, in words, and the change.
    """
    return [*_identity(guest), *_removed(guest), *_cloud(guest), *_people(guest), *_logs(guest)]


def _identity(guest: Access) -> Iterator[tuple[str, Change]]:
    """An empty machine id: systemd makes one at the first boot, and keeps it."""
    if guest.exists(_MACHINE_ID) or guest.exists("/usr/lib/systemd/systemd"):
        yield "machine id", Put(_MACHINE_ID, b"", 0o444)
    node = guest.find(_MACHINE_ID_OF_DBUS, follow=False)
    if node is not None and not node.is_link:
        yield "machine id", Remove(_MACHINE_ID_OF_DBUS)


def _removed(guest: Access) -> Iterator[tuple[str, Change]]:
    for what, folder, pattern in _PATTERNS:
        for name in guest.names(folder):
            if name not in _NEVER and fnmatch.fnmatchcase(name, pattern):
                yield what, Remove(f"{folder}/{name}")


def _cloud(guest: Access) -> Iterator[tuple[str, Change]]:
    for name in guest.names(_CLOUD):
        if name not in _KEPT_OF_CLOUD:
            yield "cloud-init's state", Remove(f"{_CLOUD}/{name}")


def _people(guest: Access) -> Iterator[tuple[str, Change]]:
    """Keys that let somebody in, and histories; cloud-init writes the next one's keys."""
    for home in ("/root", *(f"/home/{name}" for name in guest.names("/home"))):
        for name in guest.names(f"{home}/.ssh"):
            if name.startswith("authorized_keys"):
                yield "login keys", Remove(f"{home}/.ssh/{name}")
        for name in HISTORIES:
            if guest.find(f"{home}/{name}", follow=False) is not None:
                yield "histories", Remove(f"{home}/{name}")


def _logs(guest: Access) -> Iterator[tuple[str, Change]]:
    """Logs are emptied, not removed: a program may want its own to be there."""
    for path, node in guest.walk(_LOGS):
        if node.is_file and node.size and not path.startswith(f"{_LOGS}/journal/"):
            yield "logs", _emptied(path, node)


def _emptied(path: str, node: Node) -> Put:
    return Put(path, b"", node.permissions, node.uid, node.gid)

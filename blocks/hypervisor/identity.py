"""Who QEMU runs as: the owner of what it must be able to open."""

from __future__ import annotations

import grp
import pwd
import re
from functools import lru_cache
from pathlib import Path

from blocks.errors import Unsupported

QEMU_CONF = Path("/etc/libvirt/qemu.conf")
#: What distributions build libvirt with (Debian and Ubuntu, Fedora and RHEL, SUSE).
_USERS = ("libvirt-qemu", "qemu")
_SETTING = re.compile(r"""^\s*(user|group)\s*=\s*["']([^"']+)["']""", re.MULTILINE)


@lru_cache(maxsize=4)
def qemu_identity(conf: Path = QEMU_CONF) -> tuple[int, int]:
    """The user and group that libvirt runs QEMU as.

    Args:
        conf: libvirt's qemu.conf; its `user` and `group` win over the distribution's.

    Returns:
        (uid, gid).

    Raises:
        Unsupported: There is no such user.
    """
    try:
        settings = dict(_SETTING.findall(conf.read_text(errors="replace")))
    except FileNotFoundError:
        settings = {}
    user = _user(settings["user"]) if "user" in settings else _distribution_user()
    if "group" in settings:
        return user.pw_uid, _gid(settings["group"])
    try:
        # Debian's libvirt-qemu has the primary group kvm, but libvirt runs QEMU with the
        # group of the user's name.
        return user.pw_uid, grp.getgrnam(user.pw_name).gr_gid
    except KeyError:
        return user.pw_uid, user.pw_gid


def _distribution_user() -> pwd.struct_passwd:
    for name in _USERS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise Unsupported(f"this host has no user to run QEMU as ({', '.join(_USERS)})")


def _user(text: str) -> pwd.struct_passwd:
    """A `user` of qemu.conf: a name, or a number (with + in front, certainly a number)."""
    try:
        if text.startswith("+") or text.isdigit():
            return pwd.getpwuid(int(text))
        return pwd.getpwnam(text)
    except KeyError as error:
        raise Unsupported(f"qemu.conf names the user {text}, who does not exist") from error


def _gid(text: str) -> int:
    if text.startswith("+") or text.isdigit():
        return int(text)
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError as error:
        raise Unsupported(f"qemu.conf names the group {text}, which does not exist") from error

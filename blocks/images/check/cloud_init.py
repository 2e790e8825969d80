"""Whether cloud-init is there, runs, and reads what a VM is given."""

from __future__ import annotations

import re
import reprlib

from blocks.images.check.guest import Guest
from blocks.images.check.points import Points
from blocks.images.check.report import Notes

CLOUD = Points()

#: The data sources that read what we give: the config drive, and the metadata service.
_SOURCES = ("ConfigDrive", "OpenStack")
_UNITS = ("cloud-init.target", "cloud-init.service", "cloud-init-main.service")
_GENERATORS = ("/usr/lib/systemd/system-generators", "/lib/systemd/system-generators")


@CLOUD.point("cloud-init", "cloud-init is there, on, and knows our data sources")
def cloud_init(guest: Guest, notes: Notes) -> None:
    """Program, units, and the list of data sources."""
    if guest.is_micro:
        notes.saw("micro's init reads the config drive itself: name, keys, network, a script")
        return
    if not guest.access.exists("/usr/bin/cloud-init"):
        notes.fail("/usr/bin/cloud-init is not there", "install cloud-init")
        return
    notes.saw("/usr/bin/cloud-init is there")
    if guest.access.exists("/etc/cloud/cloud-init.disabled"):
        notes.fail("/etc/cloud/cloud-init.disabled switches it off", "remove that file")
    for path, line in guest.command_lines:
        if re.search(r"\bcloud-init=disabled\b", line):
            notes.fail(f"{path}: cloud-init=disabled", "take it out of the command line")
    generator = next((one for one in _GENERATORS
                      if guest.access.exists(f"{one}/cloud-init-generator")), None)  # fmt: skip
    wanted = [link for unit in _UNITS if (link := guest.unit_enabled(unit))]
    if guest.unit_masked("cloud-init.target") or guest.unit_masked("cloud-init.service"):
        notes.fail("its units are masked", "systemctl unmask cloud-init.target")
    elif wanted or generator:
        notes.saw(wanted[0] if wanted else f"{generator}/cloud-init-generator")
    else:
        notes.fail("nothing starts it at boot", "systemctl enable cloud-init.target")
    sources = guest.cloud_config.get("datasource_list")
    for path in guest.unreadable_cloud_files:
        notes.fail(f"{path} is no YAML", "correct it")
    if not isinstance(sources, list):
        notes.saw("no datasource_list: all that it knows are tried")
    elif any(one in _SOURCES for one in sources):
        notes.saw(f"datasource_list: {reprlib.repr(sources)}")
    else:
        notes.fail(f"datasource_list: {reprlib.repr(sources)}", "add ConfigDrive")


@CLOUD.point("key-setup", "cloud-init puts the key pair into the login user's account")
def key_setup(guest: Guest, notes: Notes) -> None:
    """The modules `users-groups` and `ssh` run, and there is a default user."""
    if guest.is_micro:
        notes.saw("micro's init adds the keys to root's")
        return
    modules = guest.cloud_modules("init")
    for module in ("users-groups", "ssh"):
        if module in modules:
            notes.saw(f"{module} runs in the init stage")
        else:
            notes.fail(f"{module} does not run in the init stage", "see cloud_init_modules")
    users = guest.cloud_config.get("users")
    if users is not None and not (isinstance(users, list) and "default" in users):
        notes.fail(f"users: {reprlib.repr(users)}", "add `default` to the list")

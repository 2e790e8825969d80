"""Open vSwitch's daemons: use what runs, ask systemd where it is, else start them ourselves.

Only where they are wanted (FIFTY_OPENVSWITCH=own). Like libvirt's they serve the whole
host (`shared_daemons`); who leaves last stops them, but not while they hold a bridge.
Everything of theirs is in one directory under /run: their sockets, their logs, and their
database, for the links that it tells of do not outlive a reboot either.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from pathlib import Path
from typing import BinaryIO

from blocks.changes import record
from blocks.commands import run
from blocks.errors import HostFault, Transient, Unsupported
from blocks.fabric.segments.vswitch import OWN_DIRECTORY, SYSTEM_DIRECTORY, Query, Vswitch
from deployments import processes
from deployments.shared_daemons import SharedDirectory

_SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
_SHARED = SharedDirectory(OWN_DIRECTORY)
#: In the order in which they are started.
_DAEMONS = ("ovsdb-server", "ovs-vswitchd")
_START_S = 60.0
_AGAIN_S = 0.02
#: Debian's and Ubuntu's.
_UNIT = "openvswitch-switch.service"


def use(home: Path) -> list[str]:
    """See to it that an Open vSwitch answers, and note that `home` uses ours.

    Args:
        home: FIFTY_HOME.

    Returns:
        The daemons that had to be started; empty if all was there.

    Raises:
        Unsupported: Open vSwitch is not installed.
        HostFault: It cannot be started.
    """
    if not Vswitch.is_installed():
        raise Unsupported("Open vSwitch is not installed", hint="apt install openvswitch-switch")
    with _SHARED.alone():
        if not ours() and Vswitch(SYSTEM_DIRECTORY).answers():
            shutil.rmtree(OWN_DIRECTORY)
            return []
        if Path("/run/systemd/system").is_dir():
            # The system's own from here on: not stopped by us.
            run("systemctl", "start", _UNIT, timeout_s=_START_S)
            record(f"Started {_UNIT}", f"systemctl start {_UNIT}")
            shutil.rmtree(OWN_DIRECTORY)
            return [_UNIT]
        started = start(OWN_DIRECTORY)
        _SHARED.add_user(home)
        return started


def leave(home: Path) -> list[str]:
    """Note that `home` no longer uses Open vSwitch, and stop what we started if nobody does.

    The daemons stay as long as they hold a bridge, whoever's it is.

    Returns:
        The daemons that were stopped.
    """
    if not OWN_DIRECTORY.is_dir():
        return []
    with _SHARED.alone():
        _SHARED.forget_user(home)
        if _SHARED.users() or _holds_bridges(OWN_DIRECTORY):
            return []
        return stop(OWN_DIRECTORY)


def start(directory: Path) -> list[str]:
    """Start what does not run of the two daemons, in the network namespace of the caller.

    Args:
        directory: For their sockets, logs and database; OVS_RUNDIR of who talks to them.

    Returns:
        Those that had to be started.

    Raises:
        HostFault: One does not start; the message is what it says.
    """
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    database, socket = directory / "conf.db", directory / "db.sock"
    if not database.exists():
        made = directory / "conf.db.new"
        made.unlink(missing_ok=True)
        run("ovsdb-tool", "create", made, _SCHEMA)
        made.rename(database)
    arguments = {
        "ovsdb-server": [str(database), f"--remote=punix:{socket}"],
        "ovs-vswitchd": [f"unix:{socket}"],
    }
    missing = [name for name in _DAEMONS if name not in ours(directory)]
    for name in missing:
        _let_end(directory / f"{name}.pid")
        if name == "ovs-vswitchd":
            run("ovs-vsctl", f"--db=unix:{socket}", "--no-wait", "init")
        words = [name, *arguments[name], *_options(directory, name)]
        # --detach comes back when the daemon is ready, or with what went wrong.
        run(*words, timeout_s=_START_S, env=_environment(directory), cwd=Path("/"))
        record(f"Started {name}", words)
    return missing


def _let_end(file: Path) -> None:
    """Wait for one that was killed: it holds its pid file's lock until its last thread is gone.

    That can be later than the moment in which it is a zombie, or has no arguments any more.
    """
    try:
        handle = file.open("r+b")
    except FileNotFoundError:
        return
    deadline = time.monotonic() + _START_S
    with handle:
        while not _is_free(handle) and time.monotonic() < deadline:
            time.sleep(_AGAIN_S)


def _is_free(handle: BinaryIO) -> bool:
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.lockf(handle, fcntl.LOCK_UN)
    return True


def stop(directory: Path) -> list[str]:
    """Stop the daemons that were started in a directory, and remove it.

    Returns:
        Those that ran.
    """
    stopped = []
    for name, process in reversed(ours(directory).items()):
        if name == "ovs-vswitchd":
            _clean_up(directory)
        processes.stop(process)
        stopped.append(name)
        record(f"Stopped {name}", ["kill", str(process.pid)])
    shutil.rmtree(directory)
    return stopped


def ours(directory: Path = OWN_DIRECTORY) -> dict[str, processes.Process]:
    """The daemons that run and that were started in this directory."""
    found = {}
    for name in _DAEMONS:
        file = directory / f"{name}.pid"
        try:
            process = processes.identify(int(file.read_text()))
        except (FileNotFoundError, ValueError):
            continue
        if process and f"--pidfile={file}" in processes.command_line(process.pid):
            found[name] = process
    return found


def _clean_up(directory: Path) -> None:
    """Have ovs-vswitchd take its datapath out of the kernel; it would stay there."""
    control = directory / "ovs-vswitchd.ctl"
    try:
        run("ovs-appctl", "--timeout=10", "-t", control, "exit", "--cleanup")
    except (HostFault, Transient) as error:
        record(f"ovs-vswitchd did not clean up ({error.message})", "ovs-appctl exit --cleanup")


def _holds_bridges(directory: Path) -> bool:
    vswitch = Vswitch(directory)
    if not vswitch.answers():
        return False
    [rows] = vswitch.ask(Query("Bridge", ("name",)))
    return bool(rows)


def _options(directory: Path, name: str) -> list[str]:
    return [
        f"--pidfile={directory / name}.pid",
        f"--log-file={directory / name}.log",
        f"--unixctl={directory / name}.ctl",
        "-vconsole:off",
        "--detach",
        "--no-chdir",
    ]


def _environment(directory: Path) -> dict[str, str]:
    places = ("OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR", "OVS_SYSCONFDIR")
    return {**os.environ, **{name: str(directory) for name in places}}

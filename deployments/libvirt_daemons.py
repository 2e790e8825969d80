"""libvirtd and virtlogd: use what runs, ask systemd where it is, else start them ourselves.

They serve the whole host, so several FIFTY_HOMEs share what one of them started
(`shared_daemons`, in `/run/fifty`); who leaves last stops them. What
we started is what holds our own pid file, and has its name in its arguments: libvirtd
writes that file itself, so that there is no moment at which one runs that is not known.
Beside the pid files is kept what /dev/kvm was before (see `kvm_device`). Every change is
recorded (`blocks.changes`).
"""

from __future__ import annotations

import shutil
from pathlib import Path

import libvirt

from blocks.changes import record
from blocks.commands import run
from blocks.errors import HostFault
from deployments import kvm_device, processes
from deployments.shared_daemons import SharedDirectory

URI = "qemu:///system"
_RUN = Path("/run/fifty")
_SHARED = SharedDirectory(_RUN)
#: What /dev/kvm was before we changed it; not there where we did not.
_KVM_MEMORY = _RUN / "kvm.json"
_START_S = 60.0
#: In the order in which they are started.
_DAEMONS = ("virtlogd", "libvirtd")


def answers() -> bool:
    """Whether libvirt answers on `qemu:///system`."""
    # Its default handler prints every error to standard error as well.
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    try:
        libvirt.open(URI).close()
    except libvirt.libvirtError:
        return False
    return True


def use(home: Path) -> list[str]:
    """See to it that libvirt answers, and note that `home` uses it.

    Args:
        home: FIFTY_HOME.

    Returns:
        The daemons that had to be started; empty if all was there.

    Raises:
        HostFault: They cannot be started.
    """
    with _SHARED.alone():
        started = [] if answers() else _start()
        _SHARED.add_user(home)
    return started


def leave(home: Path) -> list[str]:
    """Note that `home` no longer uses libvirt, and stop what we started if nobody does.

    libvirtd stays as long as any domain runs, whoever's it is.

    Returns:
        The daemons that were stopped.
    """
    with _SHARED.alone():
        _SHARED.forget_user(home)
        if _SHARED.users() or (ours() and _domains_run()):
            return []
        stopped = []
        for name, process in reversed(ours().items()):
            if processes.stop(process):
                stopped.append(name)
                record(f"Stopped {name}", f"kill {process.pid}")
        # Also where libvirtd never came up after the device was opened for it.
        kvm_device.put_back(_KVM_MEMORY)
        shutil.rmtree(_RUN)
        return stopped


def ours() -> dict[str, processes.Process]:
    """The daemons that run and that we started."""
    found = {}
    for name in _DAEMONS:
        try:
            process = processes.identify(int(_pid_file(name).read_text()))
        except (FileNotFoundError, ValueError):
            continue
        if process and str(_pid_file(name)) in processes.command_line(process.pid):
            found[name] = process
    return found


def _start() -> list[str]:
    if Path("/run/systemd/system").is_dir():
        # Its own from here on: systemd's services are started at boot, and not stopped by us.
        run("systemctl", "start", "libvirtd.service", timeout_s=_START_S)
        record("Started libvirtd.service", "systemctl start libvirtd.service")
        started = ["libvirtd.service"]
    else:
        # Before libvirtd: it asks QEMU what it can as soon as it is up.
        kvm_device.open_to_qemu(_KVM_MEMORY)
        started = [name for name in _DAEMONS if name not in ours()]
        for name in started:
            # --daemon comes back when the daemon listens, or with what went wrong.
            run(name, "--daemon", "--pid-file", _pid_file(name), timeout_s=_START_S, cwd=Path("/"))
            record(f"Started {name}", f"{name} --daemon --pid-file {_pid_file(name)}")
    if not answers():
        raise HostFault(
            f"libvirt was started ({', '.join(started) or 'it runs'}), but {URI} does not answer",
            hint="read /var/log/libvirt/libvirtd.log or `journalctl -u libvirtd`",
        )
    return started


def _domains_run() -> bool:
    try:
        connection = libvirt.open(URI)
    except libvirt.libvirtError:
        return False  # it does not answer: nothing runs that it could look after
    try:
        return bool(connection.listDomainsID())
    finally:
        connection.close()


def _pid_file(name: str) -> Path:
    return _RUN / f"{name}.pid"

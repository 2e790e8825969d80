"""A libvirtd and a virtlogd of a test's own, which can be killed without harm to anybody.

They run in a mount namespace of their own, in which libvirt's directories are ours; their
sockets are reached from outside by a path.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import libvirt

from deployments import processes
from tests.waiting import eventually

#: Where libvirt has its files, and what of ours is there instead.
_PLACES = {
    "etc": "/etc/libvirt",
    "run": "/run/libvirt",
    "lib": "/var/lib/libvirt",
    "log": "/var/log/libvirt",
    "cache": "/var/cache/libvirt",
}
#: $1: our directory, then ours and libvirt's in pairs until `--`, then the daemon.
_ENTER = """
while [ "$1" != -- ]; do mount --bind "$1" "$2" || exit; shift 2; done
shift
exec "$@"
"""
_STOP_S = 60.0


class PrivateLibvirt:
    """libvirtd and virtlogd, the latter for as long as this lives.

    Args:
        directory: Theirs; QEMU's user must be able to pass through it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o711)
        for name, place in _PLACES.items():
            if name in ("etc", "cache"):
                # Its configuration, and what it has found out about this QEMU.
                shutil.copytree(place, directory / name, symlinks=True)
            else:
                (directory / name).mkdir(mode=0o711)
        (directory / "log" / "qemu").mkdir()
        # Definitions, pools and networks of the host are not ours to look after.
        for name in ("qemu", "storage"):
            shutil.rmtree(directory / "etc" / name, ignore_errors=True)
        self._launch("virtlogd")

    @property
    def uri(self) -> str:
        """The connection URI."""
        return f"qemu+unix:///system?socket={self._directory / 'run' / 'libvirt-sock'}"

    def start(self) -> None:
        """Start libvirtd, if it does not run, and wait until it answers."""
        if self._process("libvirtd") is None:
            self._launch("libvirtd")
        eventually(self._answers, "libvirtd that answers")

    def stop(self, number: signal.Signals) -> None:
        """End libvirtd by a signal; the guests run on."""
        self._end("libvirtd", number)
        assert not self._answers()

    def domains(self) -> list[str]:
        """The names of all domains."""
        connection = libvirt.open(self.uri)
        try:
            return [domain.name() for domain in connection.listAllDomains()]
        finally:
            connection.close()

    def qemu(self, domain: str) -> int:
        """The process of a guest."""
        return int((self._directory / "run" / "qemu" / f"{domain}.pid").read_text())

    def close(self) -> None:
        """Stop both, and remove their files."""
        for name in ("libvirtd", "virtlogd"):
            if self._process(name):
                self._end(name, signal.SIGTERM)
        shutil.rmtree(self._directory)

    def _launch(self, name: str) -> None:
        pairs = [
            word
            for ours, theirs in _PLACES.items()
            for word in (str(self._directory / ours), theirs)
        ]
        daemon = [name, "--daemon", "--pid-file", str(self._pid_file(name))]
        words = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", _ENTER, "sh"]
        # It comes back when the daemon listens.
        subprocess.run([*words, *pairs, "--", *daemon], check=True, cwd="/", timeout=_STOP_S)

    def _end(self, name: str, number: signal.Signals) -> None:
        process = self._process(name)
        assert process is not None, f"{name} does not run"
        os.kill(process.pid, number)
        assert processes.wait_for_end(process, _STOP_S), f"{name} does not end"

    def _process(self, name: str) -> processes.Process | None:
        try:
            process = processes.identify(int(self._pid_file(name).read_text()))
        except FileNotFoundError:
            return None
        ours = process and str(self._pid_file(name)) in processes.command_line(process.pid)
        return process if ours else None

    def _pid_file(self, name: str) -> Path:
        return self._directory / "run" / f"{name}.pid"

    def _answers(self) -> bool:
        try:
            libvirt.open(self.uri).close()
        except libvirt.libvirtError:
            return False
        return True

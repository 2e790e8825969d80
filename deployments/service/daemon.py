"""`fifty serve` in the background: a systemd unit, or a process of our own with a log."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from blocks.changes import record as note
from blocks.errors import HostFault
from deployments import processes, units
from deployments.prefect_environment import without_prefect
from deployments.service import record

_PROJECT = Path(__file__).resolve().parents[2]
_START_S = 120.0
#: As the unit's TimeoutStopSec.
_STOP_S = 300.0
_LOOK_EVERY_S = 0.1


def start(home: Path, *, as_unit: bool = False) -> record.Serving:
    """Start this home's service, or use the one that runs, and wait until it takes runs.

    Args:
        home: FIFTY_HOME, initialized; its Prefect server answers.
        as_unit: Whether systemd is to look after it.

    Raises:
        HostFault: It ended, or did not become ready in time; with the last lines of its log.
    """
    log = home / "logs" / "serve.log"
    child = None
    if record.running(home) is None:
        if as_unit:
            units.start(units.SERVE, home)
        else:
            child = _launch(home, log)
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and (child is None or child.poll() is None):
        serving = record.running(home)
        if serving is not None and serving.ready is not None:
            if child is not None:
                child.returncode = 0  # it is to outlive us; else Popen warns about that
            return serving
        time.sleep(_LOOK_EVERY_S)
    stop(home)
    raise HostFault(
        "fifty serve did not become ready",
        hint=f"read `journalctl --unit {units.SERVE}`" if as_unit else f"read {log}",
        details=log.read_text(errors="replace").splitlines()[-10:] if log.exists() else (),
    )


def stop(home: Path) -> bool:
    """Stop this home's service, and wait until its runs are at rest; whether it ran."""
    if units.remove(units.SERVE, home):
        return True
    serving = record.running(home)
    if serving is None or not processes.stop(serving.process, grace_s=_STOP_S):
        return False
    note("Stopped fifty serve", f"kill {serving.process.pid}")
    return True


def _launch(home: Path, log: Path) -> subprocess.Popen[bytes]:
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with log.open("ab") as output:
        child = subprocess.Popen(
            [Path(sys.executable).with_name("fifty"), "serve"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd=_PROJECT,
            env={**without_prefect(os.environ), "FIFTY_HOME": str(home)},
        )
    note(f"Started fifty serve, with its log in {log}", "fifty serve")
    return child

"""The daemons that Fifty Steps needs: libvirt's two, a Prefect server, and `fifty serve`.

Open vSwitch's two as well, where the settings ask for daemons of our own.

`python -m deployments.daemons start|stop|status` for the FIFTY_HOME of the settings.
What runs is used, what does not is started, and only what was started here is stopped.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from blocks.errors import Conflict, FiftyError, InvalidRequest
from blocks.fabric.segments.vswitch import Vswitch
from blocks.settings import settings
from deployments import libvirt_daemons, ovs_daemons, prefect_server
from deployments.service import daemon as service_daemon
from deployments.service import record

#: What an env file holds without quotes, and without anything taken for a variable.
_PLAIN = re.compile(r"[A-Za-z0-9.,:;/_+=@%&!?*~\[\]-]*")


def prepare_home(home: Path) -> None:
    """Make FIFTY_HOME: libvirt's guests may pass through it, but not list it (0711).

    Raises:
        Conflict: The directory is there, and holds other files.
    """
    home.mkdir(parents=True, exist_ok=True)
    if any(home.iterdir()) and not is_ours(home):
        raise Conflict(
            f"{home} holds files that are not of Fifty Steps",
            hint="name a new or an empty directory in FIFTY_HOME",
        )
    _lock_file(home).touch()
    home.chmod(0o711)


def is_ours(home: Path) -> bool:
    """Whether this directory is a FIFTY_HOME, and not just one that was named so."""
    return _lock_file(home).exists() or (home / "state.db").exists()


def start(home: Path, *, as_units: bool = False) -> prefect_server.Server:
    """Start libvirt, Open vSwitch where wanted, and Prefect, whose address goes into `fifty.env`.

    The service is started by `start_service`: it needs a home that is initialized.

    Args:
        home: FIFTY_HOME; made if it is not there.
        as_units: Whether systemd is to look after the Prefect server.

    Raises:
        HostFault: A daemon cannot be started.
    """
    prepare_home(home)
    with _alone(home):
        libvirt_daemons.use(home)
        if settings().openvswitch == "own":
            ovs_daemons.use(home)
        server = prefect_server.start(home, as_unit=as_units)
        write_environment(home, prefect_server.site_environment(home, server))
    return server


def start_service(home: Path, *, as_units: bool = False) -> record.Serving:
    """Start `fifty serve`, if it does not run, and wait until it takes runs.

    Args:
        home: FIFTY_HOME, initialized.
        as_units: Whether systemd is to look after it.

    Raises:
        HostFault: It does not start.
    """
    with _alone(home):
        return service_daemon.start(home, as_unit=as_units)


def stop_service(home: Path) -> bool:
    """Stop `fifty serve`; what it was building can be gone on with. Whether it ran."""
    if not is_ours(home):
        return False
    with _alone(home):
        return service_daemon.stop(home)


def stop(home: Path) -> list[str]:
    """Stop what was started for this home.

    Returns:
        What was stopped.
    """
    if not is_ours(home):
        return _leave_shared(home)
    with _alone(home):
        stopped = ["fifty serve"] if service_daemon.stop(home) else []
        stopped += ["prefect server"] if prefect_server.stop(home) else []
        return stopped + _leave_shared(home)


def _leave_shared(home: Path) -> list[str]:
    """Leave the daemons that other homes may use, too; what was stopped of them."""
    return [*ovs_daemons.leave(home), *libvirt_daemons.leave(home)]


def status(home: Path) -> dict[str, str | bool | None]:
    """Whether the daemons answer, and where."""
    server = prefect_server.running(home)
    serving = record.running(home)
    return {
        "libvirt": libvirt_daemons.answers(),
        "libvirt_started_by_us": bool(libvirt_daemons.ours()),
        "openvswitch": Vswitch(settings().openvswitch_directory).answers(),
        "openvswitch_started_by_us": bool(ovs_daemons.ours()),
        "prefect": bool(server and prefect_server.answers(server.port)),
        "api_url": server.api_url if server else None,
        "ui_url": server.ui_url if server else None,
        "serves": serving is not None and serving.ready is not None,
    }


def write_environment(home: Path, values: Mapping[str, str | None]) -> None:
    """Set variables in `home/fifty.env`, which `blocks.settings` reads; others stay.

    Args:
        home: FIFTY_HOME.
        values: Variables with their values; None takes one out.

    Raises:
        InvalidRequest: A value would not be read as it is.
    """
    for name, value in values.items():
        if value is not None and not _PLAIN.fullmatch(value):
            raise InvalidRequest(
                f"the value of {name} cannot be kept in {home / 'fifty.env'}",
                hint="letters, digits and .,:;/_+-=@%&!?*~ can",
            )
    file = home / "fifty.env"
    kept = file.read_text().splitlines() if file.exists() else []
    kept = [line for line in kept if line.partition("=")[0] not in values]
    written = file.with_suffix(".new")
    written.unlink(missing_ok=True)
    written.touch(mode=0o600)  # one of them is a password
    written.write_text(
        "\n".join([*kept, *(f"{k}={v}" for k, v in values.items() if v is not None)]) + "\n"
    )
    written.replace(file)


def _lock_file(home: Path) -> Path:
    return home / "daemons.lock"


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """One start or stop at a time in this home."""
    with _lock_file(home).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deployments.daemons", description=__doc__)
    parser.add_argument("action", choices=("start", "stop", "status"))
    home = settings().home
    try:
        match parser.parse_args().action:
            case "start":
                start(home)
                # Before `fifty init` there is nothing to serve.
                if (home / "state.db").exists():
                    start_service(home)
            case "stop":
                print("stopped:", ", ".join(stop(home)) or "nothing, nothing of ours ran")
                return 0
        print(json.dumps(status(home), indent=2))
    except FiftyError as error:
        print(f"{error}\n  {error.hint}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

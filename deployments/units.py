"""The systemd units of Fifty Steps: `fifty-prefect.service` and `fifty-serve.service`.

There is one pair a host, for the home that `./deployments/quickstart` was run for. They are
rendered from `deployments/systemd/*.in`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from blocks.changes import record
from blocks.commands import run
from blocks.errors import Conflict

PREFECT = "fifty-prefect.service"
SERVE = "fifty-serve.service"
_PROJECT = Path(__file__).resolve().parents[1]
_TEMPLATES = Path(__file__).with_name("systemd")
_DIRECTORY = Path("/etc/systemd/system")
#: systemd comes back from `stop` when the unit has stopped: its TimeoutStopSec, and some.
_STOP_S = 330.0
_START_S = 60.0


def systemd_runs() -> bool:
    """Whether systemd looks after this machine (sd_booted(3))."""
    return Path("/run/systemd/system").is_dir()


def render(unit: str, home: Path, port: int | None = None) -> str:
    """A unit's text.

    Args:
        unit: Its name.
        home: FIFTY_HOME.
        port: The Prefect server's.
    """
    values = {
        "HOME": str(home).replace("%", "%%"),
        "HOME_WORD": _word(home),
        "HOME_ARGUMENT": _argument(home),
        "FIFTY_HOME": _word(f"FIFTY_HOME={home}"),
        # As it is: this setting takes its value without quotes.
        "PROJECT": str(_PROJECT).replace("%", "%%"),
        "PYTHON": _argument(sys.executable),
        "FIFTY": _argument(Path(sys.executable).with_name("fifty")),
        "PORT": str(port),
    }
    text = (_TEMPLATES / f"{unit}.in").read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


def _word(value: Path | str) -> str:
    """One word of a unit file, whatever is in it (systemd.syntax(7), "Quoting")."""
    text = str(value).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text}"'


def _argument(value: Path | str) -> str:
    """One word of a command line, in which `$` begins a variable (systemd.service(5))."""
    return _word(value).replace("$", "$$")


def installed(unit: str, home: Path) -> bool:
    """Whether this unit is there, and is this home's."""
    file = _DIRECTORY / unit
    return file.exists() and f"Environment={_word(f'FIFTY_HOME={home}')}\n" in file.read_text()


def start(unit: str, home: Path, port: int | None = None) -> None:
    """Install a unit, have it started at each boot, and start it now.

    Raises:
        Conflict: It is there for another home.
        CommandFailed: systemd refused.
    """
    file = _DIRECTORY / unit
    if file.exists() and not installed(unit, home):
        raise Conflict(
            f"{file} is there for another FIFTY_HOME",
            hint="take that one down first: ./deployments/quickstart --down",
        )
    file.write_text(render(unit, home, port))
    run("systemctl", "daemon-reload", timeout_s=_START_S)
    run("systemctl", "enable", "--now", unit, timeout_s=_START_S)
    record(f"Installed and started {unit}", f"systemctl enable --now {unit}")


def remove(unit: str, home: Path) -> bool:
    """Stop a unit of this home and take it away; whether it was there."""
    if not installed(unit, home):
        return False
    run("systemctl", "disable", "--now", unit, timeout_s=_STOP_S)
    (_DIRECTORY / unit).unlink()
    run("systemctl", "daemon-reload", timeout_s=_START_S)
    record(f"Stopped and removed {unit}", f"systemctl disable --now {unit}")
    return True

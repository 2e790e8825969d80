"""A test session's own directory, and the removal of all that a session left on the host.

Each pytest process has a directory `/var/tmp/fifty-tests-XXXXXXXX`, which names its owner
(pid, start time, boot), so that the leftovers of a killed session can be told from a
session that runs beside this one. What belongs to a session is what carries one of its
sites' marks, or has a path in its directory; nothing else is looked at.

`python -m tests.sessions` removes the leftovers of all sessions whose owner is gone.
"""

from __future__ import annotations

import os
import random
import secrets
import shutil
import socket
import tempfile
import time
from pathlib import Path

from deployments import daemons, prefect_server, processes
from deployments.prefect_environment import client_environment
from tests import leftovers

_PARENT = Path("/var/tmp")
_PREFIX = "fifty-tests-"
_OWNER = "owner.json"
_SITES = "sites"
#: What is there in the directory of a session that has made a lane (see `tests.lanes`).
LANE = "lane"
#: A directory without an owner is one that is just being made, or an old one.
_MAKING_S = 600.0


def begin() -> Path:
    """Make the directory of this process's session; libvirt's guests may pass through it."""
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_PARENT))
    directory.chmod(0o711)
    owner = processes.identify(os.getpid())
    assert owner is not None
    (directory / _OWNER).write_text(owner.model_dump_json())
    return directory


def enter() -> tuple[Path, int]:
    """Begin a session, and make its FIFTY_HOME and its Prefect settings this process's.

    To be called before anything imports Prefect, which reads its settings then.

    Returns:
        The session's directory, and a port for its Prefect server.
    """
    for name in [name for name in os.environ if name.startswith(("PREFECT_", "FIFTY_"))]:
        del os.environ[name]
    directory, port = begin(), _own_port()
    home = directory / "home"
    daemons.prepare_home(home)
    api_url = f"http://127.0.0.1:{port}/api"
    os.environ.update(client_environment(home, api_url, prefect_server.password(home)))
    os.environ.update({"FIFTY_HOME": str(home), "FIFTY_PREFECT_API_URL": api_url})
    return directory, port


def _own_port() -> int:
    """A free port below those that the kernel gives to others meanwhile."""
    while True:
        port = random.randrange(20000, 32000)  # noqa: S311
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def note_site(directory: Path, site: str) -> None:
    """Note that a state store with this site id is used by the session."""
    with (directory / _SITES).open("a") as file:
        file.write(f"{site}\n")


def new_site(directory: Path) -> str:
    """A site id (4 hex digits) for a test that needs no state store, noted."""
    site = secrets.token_hex(2)
    note_site(directory, site)
    return site


def end(directory: Path) -> list[str]:
    """Stop the session's daemons, remove what its tests left, and its directory.

    Returns:
        What the tests had left, in words; empty as it should be.
    """
    sites_file = directory / _SITES
    sites = set(sites_file.read_text().split()) if sites_file.exists() else set()
    found: list[str] = []
    if (directory / LANE).exists():
        found += leftovers.remove_lane(directory / LANE)
    if os.geteuid() == 0:  # unit tests run without root, and start and make nothing
        found = leftovers.remove(directory, sites)
        for file in directory.rglob("daemons.lock"):
            daemons.stop(file.parent)
    shutil.rmtree(directory)
    return found


def abandoned() -> list[Path]:
    """The directories of sessions whose process is gone."""
    found = []
    for directory in sorted(_PARENT.glob(f"{_PREFIX}*")):
        try:
            content = (directory / _OWNER).read_text()
        except FileNotFoundError:
            if directory.is_dir() and time.time() - directory.stat().st_mtime > _MAKING_S:
                found.append(directory)
            continue
        except PermissionError:
            continue
        if not processes.is_alive(processes.Process.model_validate_json(content)):
            found.append(directory)
    return found


def main() -> None:
    """Remove what killed sessions left."""
    for directory in abandoned():
        print(f"removing what the ended test session {directory.name} left")
        for line in end(directory):
            print(f"  {line}")


if __name__ == "__main__":
    main()

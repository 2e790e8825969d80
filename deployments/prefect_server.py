"""Our Prefect server: one a FIFTY_HOME, on 127.0.0.1, with SQLite and a password.

Run as a module, with FIFTY_HOME and a port, this file becomes the server: it first writes
down who it is, so that there is no moment at which a server runs that nobody knows of.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import secrets
import socket
import subprocess
import sys
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from blocks.changes import record
from blocks.errors import HostFault
from deployments import processes, units
from deployments.prefect_environment import server_environment, without_prefect

USUAL_PORT = 4200
_USER = "fifty"
_START_S = 180.0
_CLOSING_S = 5.0
_LOOK_EVERY_S = 0.1


class Server(BaseModel):
    """A Prefect server that we started, as `FIFTY_HOME/daemons.json` keeps it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    process: processes.Process
    port: int

    @property
    def api_url(self) -> str:
        """Where its API answers."""
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def ui_url(self) -> str:
        """Where a person looks at it."""
        return f"http://127.0.0.1:{self.port}"


def recorded(home: Path) -> Server | None:
    """The server that was last started for this home, alive or not."""
    try:
        return Server.model_validate_json(_record(home).read_text())
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None


def running(home: Path) -> Server | None:
    """This home's server if its process is alive."""
    server = recorded(home)
    return server if server and processes.is_alive(server.process) else None


def password(home: Path) -> str:
    """`USER:PASSWORD` of this home's server; made at random when it is first asked for.

    Args:
        home: FIFTY_HOME, which must exist.
    """
    file = home / "prefect" / "password"
    file.parent.mkdir(mode=0o700, exist_ok=True)
    if not file.exists():
        written = file.with_name(f"password.{os.getpid()}")
        written.touch(mode=0o600)
        written.write_text(f"{_USER}:{secrets.token_urlsafe(24)}\n")
        with contextlib.suppress(FileExistsError):  # another process was faster
            file.hardlink_to(written)
        written.unlink()
    return file.read_text().strip()


def site_environment(home: Path, server: Server) -> dict[str, str]:
    """What `fifty.env` says of this home's server: where it is, and its password."""
    return {"FIFTY_PREFECT_API_URL": server.api_url, "FIFTY_PREFECT_AUTH": password(home)}


def answers(port: int) -> bool:
    """Whether a Prefect server on this port says that it is well (`/api/health`)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/api/health")
        response = connection.getresponse()
        return response.status == http.client.OK and response.read().strip() == b"true"
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def start(home: Path, port: int | None = None, *, as_unit: bool = False) -> Server:
    """Start this home's server, or use the one that runs, and wait until it answers.

    Args:
        home: FIFTY_HOME, which must exist.
        port: The port to use; none means the one it had before, or 4200, or a free one.
        as_unit: Whether systemd is to look after it.

    Raises:
        HostFault: It ended, or did not answer in time; with the last lines of its log.
    """
    before, server = recorded(home), running(home)
    if server and _wait_until_well(server):
        return server
    stop(home)
    log = home / "logs" / "prefect-server.log"
    for directory in (log.parent, home / "prefect"):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    chosen = port or _free_port(before.port if before else None)
    process = _as_unit(home, chosen) if as_unit else _as_process(home, chosen, log)
    if process and _wait_until_well(Server(process=process, port=chosen)):
        return Server(process=process, port=chosen)
    stop(home)
    raise HostFault(
        f"the Prefect server did not come up on 127.0.0.1:{chosen}",
        hint=f"read `journalctl --unit {units.PREFECT}`" if as_unit else f"read {log}",
        details=log.read_text(errors="replace").splitlines()[-10:] if log.exists() else (),
    )


def _as_process(home: Path, port: int, log: Path) -> processes.Process | None:
    with log.open("ab") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "deployments.prefect_server", str(home), str(port)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd=Path(__file__).resolve().parent.parent,
        )
    process = processes.identify(child.pid)
    child.returncode = 0  # it is to outlive us; without this, Popen warns about that
    record(
        f"Started a Prefect server on 127.0.0.1:{port}",
        f"python -m deployments.prefect_server {home} {port}",
    )
    return process


def _as_unit(home: Path, port: int) -> processes.Process | None:
    """Have systemd start it; the process is the one that has then written itself down."""
    units.start(units.PREFECT, home, port)
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        server = running(home)
        if server and server.port == port:
            return server.process
        time.sleep(_LOOK_EVERY_S)
    return None


def stop(home: Path) -> bool:
    """Stop this home's server and forget it.

    Returns:
        Whether one was running.
    """
    server = running(home)
    if units.remove(units.PREFECT, home):
        _record(home).unlink(missing_ok=True)
        return True
    stopped = server is not None and processes.stop(server.process)
    if server and stopped:
        record("Stopped the Prefect server", f"kill {server.process.pid}")
    _record(home).unlink(missing_ok=True)
    return stopped


def _record(home: Path) -> Path:
    return home / "daemons.json"


def _free_port(before: int | None) -> int:
    """A port to listen on: the one it had before, the usual one, any."""
    if before and _becomes_free(before):
        return before
    for wanted in (USUAL_PORT, 0):
        port = _bindable(wanted)
        if port:
            return port
    raise HostFault("no TCP port is free on 127.0.0.1")


def _becomes_free(port: int) -> bool:
    """Whether a port is free, or so within seconds.

    The kernel may close a killed server's socket after the process has gone (what its
    event loop had queued in an io_uring holds the socket for a while).
    """
    deadline = time.monotonic() + _CLOSING_S
    while not _bindable(port):
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_EVERY_S)
    return True


def _bindable(port: int) -> int | None:
    """The port (for 0 any free one) if a server could listen on it now."""
    with socket.socket() as probe:
        # As the server does: a port whose last connections are closing is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return None
        return int(probe.getsockname()[1])


def _wait_until_well(server: Server) -> bool:
    """Wait until the server answers, it has ended, or its time is up."""
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if answers(server.port):
            return processes.is_alive(server.process)
        if processes.wait_for_end(server.process, _LOOK_EVERY_S):
            return False
    return False


def main() -> None:
    """Be the server: write down pid and port, then do what `prefect server start` does."""
    home, port = Path(sys.argv[1]), int(sys.argv[2])
    process = processes.identify(os.getpid())
    if process is None:
        raise HostFault("/proc does not show this process")
    written = _record(home).with_suffix(".new")
    written.write_text(Server(process=process, port=port).model_dump_json(indent=2) + "\n")
    written.replace(_record(home))
    # Prefect reads its settings when it is imported, .env and prefect.toml of the working
    # directory too: let that be its own.
    own = server_environment(home, port, password(home))
    for name in [name for name in os.environ if name not in without_prefect(os.environ)]:
        del os.environ[name]
    os.environ.update({**own, "FIFTY_HOME": str(home)})
    os.chdir(home / "prefect")
    from deployments.prefect_app import serve  # noqa: PLC0415

    serve("127.0.0.1", port)


if __name__ == "__main__":
    main()

"""What all tests share: an environment of their own, and the daemons, started when asked for.

Importing this file gives the session a directory `/var/tmp/fifty-tests-XXXXXXXX` and sets
FIFTY_HOME and PREFECT_* to places in it, before any test module imports Prefect. A
person's own Prefect profiles, FIFTY_* variables and servers have no influence.

Fixtures, all of the session's scope:

- `session_directory`: the directory; put files there that libvirt's guests must reach.
- `fifty_home`: FIFTY_HOME, an empty one at first, mode 0711.
- `libvirtd`: the URI of a libvirt that answers; started if need be, stopped at the end
  if it was started and nobody else uses it.
- `prefect_server`: the API's URL (also in PREFECT_API_URL) of a server of this session.
- `site`: a site id for tests that use a block without a state store. What carries its
  mark, and namespaces and links named `ft{site}...`, are the session's.

At the session's end whatever its tests left on the host is told, removed, and makes the
session fail.
"""

from __future__ import annotations

import signal
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments import libvirt_daemons, prefect_server
from tests import sessions

_DIRECTORY, _PORT = sessions.enter()
_LONG_S = 20.0

# A whole site, shared by the tests under e2e/ and service/.
from tests.sites import _site_cloud, cloud, specimen  # noqa: E402, F401


def pytest_configure(config: pytest.Config) -> None:
    """SIGTERM ends the session as Ctrl-C does; `tmp_path` goes with the session's directory.

    Ctrl-C does so also where a shell has started us in the background, with SIGINT ignored.
    """
    config.option.basetemp = config.option.basetemp or str(_DIRECTORY / "tmp")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Remove what the tests left, and fail the session if there was anything."""
    left = sessions.end(_DIRECTORY)
    if left:
        lines = "\n".join(f"  {line}" for line in left)
        print(f"\nThe tests left on the host (it is removed now):\n{lines}")
        if session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell which files take long: `tests.lanes` divides them so that both lanes do."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for report in (one for reports in terminalreporter.stats.values() for one in reports):
        if isinstance(report, pytest.TestReport):
            seconds[report.nodeid.partition("::")[0]] += report.duration
    long = sorted((took, name) for name, took in seconds.items() if took >= _LONG_S)
    if long:
        terminalreporter.section("files that take long")
    for took, name in reversed(long):
        terminalreporter.write_line(f"{took:7.0f}s {name}")


@pytest.fixture(scope="session")
def session_directory() -> Path:
    """The session's directory, removed at its end."""
    return _DIRECTORY


@pytest.fixture(scope="session")
def fifty_home() -> Path:
    """FIFTY_HOME of the session."""
    return _DIRECTORY / "home"


@pytest.fixture(scope="session")
def site() -> str:
    """A site id of the session's."""
    return sessions.new_site(_DIRECTORY)


@pytest.fixture(scope="session")
def libvirtd(fifty_home: Path) -> Iterator[str]:
    """The URI of a libvirt that answers."""
    libvirt_daemons.use(fifty_home)
    yield libvirt_daemons.URI
    libvirt_daemons.leave(fifty_home)


@pytest.fixture(scope="session", name="prefect_server")
def _prefect_server(fifty_home: Path) -> Iterator[str]:
    server = prefect_server.start(fifty_home, _PORT)
    yield server.api_url
    prefect_server.stop(fifty_home)

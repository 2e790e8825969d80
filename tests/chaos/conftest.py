"""Chaos has a service of its own, and tells its figures in the run's summary."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.monkey import Figures
from tests.cloud import Cloud
from tests.service.served import Served

FIGURES = pytest.StashKey[Figures]()


@pytest.fixture
def served(site_cloud: Cloud, session_directory: Path) -> Iterator[Served]:
    """`fifty serve`, running."""
    found = Served(site_cloud, session_directory / "chaos-serve.log")
    found.start()
    yield found
    found.stop(signal.SIGTERM)


@pytest.fixture
def figures(pytestconfig: pytest.Config) -> Figures:
    """What happened, counted; told at the end of the run, also where the test has failed."""
    return pytestconfig.stash.setdefault(FIGURES, Figures())


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Tell the figures."""
    found = config.stash.get(FIGURES, None)
    if found is not None:
        terminalreporter.section("chaos")
        terminalreporter.write_line(str(found))

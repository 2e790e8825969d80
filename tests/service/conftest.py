"""`served`: a running `fifty serve` on the tests' site.

Its schedules are on, and its reconcile takes builds that other tests stop on purpose: so it
ends with the tests of this directory, which run last.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cloud import Cloud
from tests.service.served import Served


@pytest.fixture(scope="package", name="served")
def _served(site_cloud: Cloud, session_directory: Path) -> Iterator[Served]:
    """The service, running; whatever a test does to it, it leaves it so."""
    served = Served(site_cloud, session_directory / "serve.log")
    served.start()
    yield served
    code = served.stop(signal.SIGTERM)
    said = served.log.read_text()
    assert code == 0, said
    assert "Traceback" not in said
    assert said.endswith("stopped\n")

"""A site of its own for tests of `fifty image`, without networks or guests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from blocks.state import StateStore
from deployments import daemons
from tasks.faults import VARIABLE
from tests import sessions
from tests.cloud import Cloud
from tests.forked import ForkedCloud, forked

ROOT = Path(__file__).resolve().parent.parent.parent


class Site:
    """A site of its own, without networks.

    Args:
        home: FIFTY_HOME.
        api_url: The Prefect API.
    """

    def __init__(self, home: Path, api_url: str) -> None:
        self.home = home
        self._api_url = api_url
        self.store = StateStore(home / "state.db", "here")
        #: Its commands in forks, when it is initialized.
        self.quick: ForkedCloud | None = None

    def environment(self) -> dict[str, str]:
        """What its commands run in; they may fetch from loopback."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("FIFTY")}
        return {
            **kept,
            "FIFTY_HOME": str(self.home),
            "FIFTY_PREFECT_AUTH": os.environ["PREFECT_API_AUTH_STRING"],
            "FIFTY_IMPORT_NETWORKS": '["127.0.0.0/8"]',
        }

    def run(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run `fifty`."""
        if self.quick is not None and variables.keys() <= {VARIABLE}:
            return self.quick.run(*words, "--json", fault=variables.get(VARIABLE, ""))
        return subprocess.run(
            [sys.executable, "-m", "deployments.cli", *words, "--json"],
            cwd=ROOT,
            env=self.environment() | variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def fifty(self, *words: str, code: int = 0, **variables: str) -> Any:  # noqa: ANN401
        """Run it, check its exit code, and give back its document."""
        done = self.run(*words, **variables)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return json.loads(done.stdout)

    def files(self) -> list[str]:
        """What is in the image store."""
        images = self.home / "images"
        found = (path for path in images.rglob("*") if path.is_file() and path.suffix != ".lock")
        rest = [path for path in images.glob("build/*") if path.is_dir()]
        return sorted(str(path.relative_to(images)) for path in (*found, *rest))

    def require_nothing(self) -> None:
        """Nothing is left: no file, and no record."""
        assert self.files() == []
        assert self.store.images.list(None) == []


@pytest.fixture(name="site", scope="module")
def _site(
    request: pytest.FixtureRequest, session_directory: Path, prefect_server: str, libvirtd: str
) -> Iterator[Site]:
    del libvirtd
    home = session_directory / request.module.__name__.rpartition("_")[2]
    daemons.prepare_home(home)
    site = Site(home, prefect_server)
    made = site.fifty("init", "--api-url", prefect_server)
    sessions.note_site(session_directory, made["site"])
    with forked(Cloud(home, prefect_server), site.environment()) as site.quick:
        yield site
    site.store.database.dispose()

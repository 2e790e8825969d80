"""Processes that are known by an argument, also while they go into the background."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from blocks.fabric.processes import having
from tests.waiting import eventually

#: It is another process all the time, until its file is gone.
_RESTLESS = """
import os, sys
while os.path.exists(sys.argv[1]):
    if os.fork():
        os._exit(0)
"""


def test_one_that_goes_on_as_another_process_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "goes on"
    file.touch()
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", _RESTLESS, str(file)]):
        try:
            eventually(lambda: having(str(file)), "process")
            assert all(having(str(file)) for _ in range(20))
        finally:
            file.unlink()
    eventually(lambda: not having(str(file)), "its end")

"""README's chapters "Operate" and "API": their shell blocks are run as they stand, in order.

A line that begins with `#>` is one that the commands before it print; `...` stands for any
lines. Ids may differ.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cloud import Cloud
from tests.e2e.test_readme import README, assert_prints

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.usefixtures("served")]

_BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ADDRESS = re.compile(r"\b10\.\d+\.\d+\.\d+\b|\b192\.168\.\d+\.\d+\b")


def blocks(chapter: str) -> list[str]:
    found = re.search(rf"^## {chapter}\n(.*?)(?=^## )", README.read_text(), re.M | re.S)
    assert found is not None
    return _BLOCK.findall(found[1])


@pytest.mark.parametrize("chapter", ["Operate", "API"])
def test_a_chapter_is_true(cloud: Cloud, chapter: str) -> None:
    told = "".join(blocks(chapter))
    told = _ADDRESS.sub("ADDRESS", told)
    script = "\n".join(line for line in told.splitlines() if not line.startswith("#>"))
    expected = [line.removeprefix("#>") for line in told.splitlines() if line.startswith("#>")]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        capture_output=True,
        text=True,
        env={**kept, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert_prints(chapter, expected, _ADDRESS.sub("ADDRESS", done.stdout).splitlines())
    assert not {"shop", "one"} & {vm["name"] for vm in cloud.json("vm", "list")}

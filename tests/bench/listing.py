"""`fifty vm list` with 1,000 instances, against `python -c 'import sqlalchemy'`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.figures import Figure, of_samples, say
from tests.unit.cli_store import Filled

TARGET = 3.0
MEMORY_TARGET_MIB = 150.0
INSTANCES = 1000
_A_NETWORK = 250
_LIST = [str(Path(sys.executable).with_name("fifty")), "vm", "list"]
#: A small process that runs a command and tells its time and memory: what a child's peak
#: is counted from is its parent's size when it was started.
_METER = """
import json, os, sys, time
began = time.perf_counter()
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ,
                     file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)])
_, status, usage = os.wait4(pid, 0)
print(json.dumps([time.perf_counter() - began, usage.ru_maxrss / 1024, status]))
"""


def measure(directory: Path, runs: int) -> list[Figure]:
    """The list's time as a ratio, and its memory."""
    say(f"filling a state store with {INSTANCES} instances")
    home = directory / "listed"
    home.mkdir()
    _fill(home)
    environment = {**os.environ, "FIFTY_HOME": str(home)}
    listed = json.loads(_output([*_LIST, "--json"], environment))
    assert len(listed) == INSTANCES, f"{len(listed)} instances were listed"
    bare = [sys.executable, "-c", "import sqlalchemy"]
    _metered(bare, environment)
    # Each run is a fraction of a second: more of them cost nothing and settle the median.
    pairs = [(_metered(bare, environment), _metered(_LIST, environment)) for _ in range(runs * 2)]
    ratio = of_samples(
        f"fifty vm list, {INSTANCES} instances / import sqlalchemy",
        [ours[0] / imported[0] for imported, ours in pairs],
        "",
        TARGET,
    )
    modules = _imported(environment)
    ratio.notes = [
        f"import sqlalchemy {median(one[0] for one, _ in pairs) * 1000:.0f} ms, "
        f"list {median(one[0] for _, one in pairs) * 1000:.0f} ms; Prefect is not imported",
        f"slowest imports (ms, with what they import): {_slowest(modules)}",
    ]
    memory = of_samples(
        "fifty vm list: peak memory", [ours[1] for _, ours in pairs], "MiB", MEMORY_TARGET_MIB
    )
    return [ratio, memory]


def _fill(home: Path) -> None:
    filled = Filled(home)
    for number in range(INSTANCES):
        network, place = divmod(number, _A_NETWORK)
        if place == 0 and network:
            filled.network = filled.add_network(f"lab{network}", filled.tenant)
        filled.add_vm(f"vm{number}", address=f"10.0.0.{place + 2}")


def _output(words: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def _metered(words: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Seconds and MiB that a command takes."""
    meter = [sys.executable, "-I", "-S", "-c", _METER, *words]
    seconds, memory, status = json.loads(_output(meter, environment))
    assert status == 0, f"{words} ended with {status}"
    return float(seconds), float(memory)


def _imported(environment: dict[str, str]) -> dict[str, int]:
    """What the command imports, with the microseconds that each module took in all.

    Raises:
        AssertionError: Prefect is among it.
    """
    done: Any = subprocess.run(
        [sys.executable, "-X", "importtime", *_LIST],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.findall(r"^import time: +\d+ \| +(\d+) \| +(\S+)$", done.stderr, re.M)
    modules = {name: int(microseconds) for microseconds, name in found}
    assert "sqlalchemy" in modules
    prefect = [name for name in modules if name.split(".")[0] == "prefect"]
    assert not prefect, f"`fifty vm list` imports {prefect}"
    return modules


def _slowest(modules: dict[str, int]) -> str:
    order = sorted(modules.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {microseconds / 1000:.0f}" for name, microseconds in order[:10])

"""`python -m tests.bench`: the benchmarks, as `tests/bench/run` starts them."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
from pathlib import Path

from tests import sessions
from tests.bench import boot, engine, images, listing, networks, service, throughput
from tests.bench.figures import Figure, say, table
from tests.bench.site import site

MISSED = 3
NAMES = ("list", "engine", "micro", "service", "throughput", "ports", "networks", "images")


def main() -> int:
    """Measure, print, and say by the exit code whether a target was missed."""
    parser = argparse.ArgumentParser(prog="tests/bench/run")
    parser.add_argument("--only", action="append", choices=NAMES)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    # SIGTERM ends the session as Ctrl-C does: everything that was made is removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    directory, port = sessions.enter()
    try:
        figures = _measure(directory, port, options.only or list(NAMES), options.runs)
    finally:
        left = sessions.end(directory)
        if left:
            say("left on the host, and removed now:\n  " + "\n  ".join(left))
    if options.json:
        print(json.dumps([figure.as_dict() for figure in figures], indent=2))
    else:
        print(f"\n{os.cpu_count()} processors, Linux {platform.release()}, {options.runs} runs\n")
        print(table(figures))
    return MISSED if any(figure.missed for figure in figures) else 0


def _measure(directory: Path, port: int, names: list[str], runs: int) -> list[Figure]:
    figures: list[Figure] = []
    if "list" in names:
        figures += listing.measure(directory, runs)
    if "throughput" in names:
        figures += throughput.measure(directory, runs)
    if "ports" in names:
        figures += networks.measure_ports(directory, runs)
    if "networks" in names:
        figures += networks.measure_networks(directory, runs)
    if {"engine", "micro", "service", "images"} & set(names):
        with site(directory, port) as cloud:
            if "engine" in names:
                figures += engine.measure(cloud, runs)
            if "micro" in names:
                figures += boot.measure(cloud, runs)
            if "service" in names:
                figures += service.measure(cloud, directory)
            if "images" in names:
                figures += images.measure(cloud, directory, runs)
    return figures


if __name__ == "__main__":
    sys.exit(main())

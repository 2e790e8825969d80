"""`fifty`: the command line."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command that the process was started with.

    Returns:
        The exit code: 0 done, 1 refused or failed, 2 wrong usage, 3 and 4 of `fifty
        audit`, 130 for Ctrl-C.
    """
    from deployments.cli.app import run

    return run(sys.argv[1:])

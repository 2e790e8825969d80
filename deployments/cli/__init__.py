"""`fifty`: the command line."""

from __future__ import annotations

import gc
import logging
import sys


def main() -> int:
    """Run the command that the process was started with.

    Returns:
        The exit code: 0 done, 1 refused or failed, 2 wrong usage, 3 and 4 of `fifty
        audit`, 130 for Ctrl-C, 143 for SIGTERM.
    """
    # A command's start makes a million objects, none of them garbage: looking through them
    # again and again, and once more at the end, is a fifth of a short command's time.
    # `flow_runs.run_flow` turns it on again for what runs longer.
    gc.disable()
    try:
        from deployments.cli.app import run

        return run(sys.argv[1:])
    finally:
        gc.freeze()
        if "prefect" in sys.modules:
            # It still sends events and logs while the process ends, and would say so.
            logging.disable(logging.WARNING)

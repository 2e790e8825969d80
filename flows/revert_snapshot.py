"""Bring a VM back to a snapshot."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from blocks.resources import SnapshotReference
from flows.names import run_name
from tasks.run import Runner
from tasks.session import create
from tasks.snapshot_revert import (
    REVERT_KIND,
    claim_snapshot,
    discard,
    make_layer,
    start_guest,
    stop_guest,
    switch_disk,
    validate_revert,
)


@flow(name="revert-snapshot", flow_run_name=run_name, validate_parameters=False)
def revert_snapshot(request: SnapshotReference) -> State[Any]:
    """Bring a VM back to a snapshot; what was written to its disk since is discarded.

    Where the snapshot holds the memory, the guest goes on as it was then. Else it starts
    from its disk where it ran before, and stays off where it did not. The snapshot stays, and so
    do later ones. Ends when the guest runs, not when it answers.
    """
    return create(REVERT_KIND, request, revert_steps)


def revert_steps(run: Runner) -> None:
    """The steps of a revert, in order."""
    run(validate_revert)
    run(claim_snapshot)
    run(stop_guest)
    run(make_layer)
    run(switch_disk)
    run(start_guest)
    run(discard)

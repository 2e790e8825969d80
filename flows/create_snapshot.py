"""Take a snapshot of a VM."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from blocks.resources import SnapshotRequest
from flows.names import run_name
from tasks.run import Runner
from tasks.session import create
from tasks.snapshot_take import (
    SNAPSHOT_KIND,
    freeze_disk,
    make_available,
    record_snapshot,
    validate_snapshot,
)


@flow(name="create-snapshot", flow_run_name=run_name, validate_parameters=False)
def create_snapshot(request: SnapshotRequest) -> State[Any]:
    """Take a snapshot of a VM's root disk, running or off, and where asked of its memory.

    The VM goes on meanwhile. Its volumes are not a part of it.
    """
    return create(SNAPSHOT_KIND, request, snapshot_steps)


def snapshot_steps(run: Runner) -> None:
    """The steps of a snapshot, in order."""
    run(validate_snapshot)
    run(record_snapshot)
    run(freeze_disk)
    run(make_available)

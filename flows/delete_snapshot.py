"""Delete a snapshot of a VM."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from blocks.resources import SnapshotReference
from flows.names import run_name
from tasks.snapshot_delete import delete


@flow(name="delete-snapshot", flow_run_name=run_name, validate_parameters=False)
def delete_snapshot(request: SnapshotReference) -> State[Any]:
    """Delete a snapshot: what was written since is merged into it, and the VM keeps it.

    By block commit where the VM runs, which it goes on doing. Refused while two lines of
    snapshots come from it.
    """
    return delete(request)

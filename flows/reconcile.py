"""Bring every build that stopped to one of its ends."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from blocks.resources import ReconcileRequest
from flows.finish_build import finish_build
from tasks.reconcile import reconcile_all


@flow(name="reconcile", validate_parameters=False)
def reconcile(request: ReconcileRequest | None = None) -> State[Any]:
    """Bring every build that stopped to one of its ends.

    A build has stopped when no process holds its lease. It is gone on with, or undone, as its
    request says.
    """
    return reconcile_all(
        request or {}, lambda reference: finish_build(reference, return_state=True)
    )

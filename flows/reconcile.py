"""Bring every build that stopped to one of its ends."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from blocks.resources import ReconcileRequest
from flows.finish_build import finish_build
from tasks.reconcile import reconcile_all

_AS_USUAL = ReconcileRequest()


@flow(name="reconcile", flow_run_name="reconcile", validate_parameters=False)
def reconcile(request: ReconcileRequest = _AS_USUAL) -> State[Any]:
    """Bring every build that stopped to one of its ends.

    A build has stopped when no process holds its lease. It is gone on with, or undone, as its
    request says.
    """
    return reconcile_all(request, lambda reference: finish_build(reference, return_state=True))

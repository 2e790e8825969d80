"""Bring every build that stopped to one of its ends."""

from __future__ import annotations

from functools import partial
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from blocks.resources import ReconcileRequest
from flows.finish_build import finish_build
from flows.restoration import RESTORATIONS
from tasks.reconcile import reconcile_all

_AS_USUAL = ReconcileRequest()


@flow(name="reconcile", flow_run_name="reconcile", validate_parameters=False)
def reconcile(request: ReconcileRequest = _AS_USUAL) -> State[Any]:
    """Bring every build that stopped to one of its ends, and back what this host has lost.

    A build has stopped when no process holds its lease. It is gone on with, or undone, as its
    request says. After a reboot of the host its networks are made again, and the VMs that ran
    are started; without a reboot a VM that is off is recorded as SHUTOFF.
    """
    finisher = partial(finish_build, return_state=True)
    return reconcile_all(request, RESTORATIONS, finisher)

"""Bring a build that stopped to one of its ends."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from blocks.resources import BuildReference
from flows.names import run_name
from flows.plans import PLANS
from flows.restoration import RESTORATIONS
from tasks.reconcile import finish_stopped


@flow(name="finish-build", flow_run_name=run_name, validate_parameters=False)
def finish_build(request: BuildReference) -> State[Any]:
    """Bring a build that stopped to one of its ends: go on with it, or undo it.

    Or bring back what was complete and is lost to its host, as after a reboot. `reconcile`
    makes these runs; a person rather takes `resume-vm`, `rollback-vm` or `start-vm`.
    """
    return finish_stopped(PLANS, RESTORATIONS, request)

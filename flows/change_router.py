"""Change a router: make it, attach networks, set and clear its gateway, delete it."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from blocks.resources import RouterRequest
from flows.names import run_name
from tasks.one_change import carry_out
from tasks.router_change import ROUTER_CHANGES


@flow(name="change-router", flow_run_name=run_name, validate_parameters=False)
def change_router(request: RouterRequest) -> State[Any]:
    """Change a router; each change can be repeated, and says when there is nothing to do."""
    return carry_out(ROUTER_CHANGES, request)

"""Change a security group: make it, add and remove its rules, delete it."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from blocks.resources import SecurityGroupRequest
from flows.names import run_name
from tasks.one_change import carry_out
from tasks.security_group_change import SECURITY_GROUP_CHANGES


@flow(name="change-security-group", flow_run_name=run_name, validate_parameters=False)
def change_security_group(request: SecurityGroupRequest) -> State[Any]:
    """Change a security group; the VMs that are in it feel it at once.

    What no rule lets pass any more ends, connections that are open too.
    """
    return carry_out(SECURITY_GROUP_CHANGES, request)

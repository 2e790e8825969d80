"""Change a floating IP: take an address outside, attach it to a VM, detach it, give it back."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from blocks.resources import FloatingIpRequest
from flows.names import run_name
from tasks.floating_ip_change import FLOATING_IP_CHANGES
from tasks.one_change import carry_out


@flow(name="change-floating-ip", flow_run_name=run_name, validate_parameters=False)
def change_floating_ip(request: FloatingIpRequest) -> State[Any]:
    """Change a floating IP; each change can be repeated.

    One that is attached elsewhere is moved; open connections through it end then.
    """
    return carry_out(FLOATING_IP_CHANGES, request)

"""Change a VM's ports: plug it into a network more, unplug it, set groups and port security."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from blocks.resources import PortRequest
from flows.names import run_name
from tasks.one_change import carry_out
from tasks.port_change import PORT_CHANGES


@flow(name="change-port", flow_run_name=run_name, validate_parameters=False)
def change_port(request: PortRequest) -> State[Any]:
    """Change the ports of a VM that is there, running or off.

    A new interface is in the guest at once; one that is to go does so when the guest lets it.
    """
    return carry_out(PORT_CHANGES, request)

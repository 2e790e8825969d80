"""Delete a network: every step that made it is undone, in reverse."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from blocks.resources import NamedRequest
from flows.names import run_name
from tasks.network_build import NETWORK_KIND
from tasks.session import delete


@flow(name="delete-network", flow_run_name=run_name, validate_parameters=False)
def delete_network(request: NamedRequest) -> State[Any]:
    """Delete a network: every step that made it is undone, in reverse.

    Refused while something uses it, and the answer says what.
    """
    return delete(NETWORK_KIND, request)

"""Create a network, with its subnet and, where asked for, its router and gateway."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from blocks.resources import NetworkRequest
from flows.names import run_name
from flows.restoration import NETWORK_AGAIN
from tasks.network_build import NETWORK_KIND
from tasks.network_outside_steps import (
    create_external_network,
    create_external_subnet,
    set_router_gateway,
)
from tasks.network_steps import (
    attach_subnet,
    create_network_record,
    create_router_record,
    create_subnet_record,
    realize_segment,
    serve_subnet,
    validate_network,
)
from tasks.run import Runner
from tasks.session import create


@flow(name="create-network", flow_run_name=run_name, validate_parameters=False)
def create_network(request: NetworkRequest) -> State[Any]:
    """Create a network, with its subnet and, where asked for, its router and gateway.

    Give it a name and a CIDR; the rest has defaults. Guests of one network reach each other,
    and nothing else without a router. An admin can have an external network made with it,
    and the router's gateway in that. Where a step fails everything is undone.
    The same again brings back what the host has lost of it.
    """
    return create(NETWORK_KIND, request, network_steps, NETWORK_AGAIN, NetworkRequest)


def network_steps(run: Runner) -> None:
    """The steps of a network, in order."""
    run(validate_network)
    run(create_network_record)
    run(create_subnet_record)
    run(realize_segment)
    run(serve_subnet)
    run(create_router_record)
    run(attach_subnet)
    run(create_external_network)
    run(create_external_subnet)
    run(set_router_gateway)

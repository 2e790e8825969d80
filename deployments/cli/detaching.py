"""`--detach`: a flow run of a deployment is made, and whoever serves it does the work."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Annotated, Any

from cyclopts import Parameter

from deployments.cli import documents, output
from deployments.cli.flow_runs import connect

Detach = Annotated[
    bool,
    Parameter(
        name="--detach",
        negative="",
        show_default=False,
        help="Let `fifty serve` do it, and come back at once.",
    ),
]


def send(flow: str, request: Mapping[str, Any], *, json: bool, look: str = "") -> None:
    """Send a request to a flow's deployment, and tell which run it is.

    Args:
        flow: The flow's name, such as `create-vm`.
        request: Its parameter `request`.
        json: As one JSON document.
        look: The command that shows how far it is.
    """
    url = connect()
    # After connect(): it imports Prefect.
    from deployments import detached
    from deployments.served_flows import DEPLOYMENT

    # Without an id the key is for this one command: a busy server is asked several times.
    key = request.get("request_id") or str(uuid.uuid4())
    flow_run_id = detached.send(f"{flow}/{DEPLOYMENT}", request, key)
    found = {
        "name": request.get("name") or request.get("recipe"),
        "request_id": request.get("request_id"),
        "flow_run_id": flow_run_id,
        "url": documents.flow_run_url(flow_run_id) or url,
    }
    if json:
        output.document(found)
        return
    output.facts(found.items())
    if look:
        output.say(f"`{output.plain(look)}` shows how far it is.")

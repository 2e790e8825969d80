"""Flow runs of deployments: somebody else's process does the work. Imports Prefect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from blocks.errors import InvalidRequest, NotFound


def send(deployment: str, request: Mapping[str, Any], key: str) -> str:
    """Make a flow run of a deployment.

    Args:
        deployment: Its name, `<flow>/<name>`.
        request: The flow's parameter `request`.
        key: The idempotency key: the same again is the same run.

    Returns:
        The flow run's id.

    Raises:
        NotFound: There is no such deployment.
        InvalidRequest: The server refused the request by the deployment's schema.
    """
    with get_client(sync_client=True) as client:
        try:
            found = client.read_deployment_by_name(deployment)
        except ObjectNotFound as error:
            raise NotFound(
                f"there is no deployment {deployment!r} on the Prefect server",
                hint="leave --detach out, or deploy the flows and start what runs them",
            ) from error
        try:
            run = client.create_flow_run_from_deployment(
                found.id, parameters={"request": dict(request)}, idempotency_key=key
            )
        except PrefectHTTPStatusError as error:
            if error.response.status_code not in (409, 422):
                raise
            detail = error.response.json().get("detail", error.response.text)
            raise InvalidRequest(f"the Prefect server refused it: {detail}") from error
    return str(run.id)

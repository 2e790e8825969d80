"""Flow runs of deployments: somebody else's process does the work. Imports Prefect."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from blocks.errors import Conflict, FiftyError, InvalidRequest, NotFound, Transient
from deployments.repeated_key import conflict, differing

#: Seconds in which a request is sent again where the server is busy, or is just starting.
PATIENCE_S = 90.0
_LONGEST_PAUSE_S = 8.0
#: Prefect's own limit (PREFECT_SERVER_API_MAX_PARAMETER_SIZE).
_PARAMETERS = 512 * 1024
_BUSY = (429, 502, 503, 504)

Answer = TypeVar("Answer")


def send(deployment: str, request: Mapping[str, Any], key: str) -> str:
    """Make a flow run of a deployment, once, however often it has to be sent.

    Args:
        deployment: Its name, `<flow>/<name>`.
        request: The flow's parameter `request`.
        key: The idempotency key: the same again is the same run.

    Returns:
        The flow run's id.

    Raises:
        NotFound: There is no such deployment.
        InvalidRequest: The server refused the request, or it is too big for it.
        Conflict: There is a run with this key and other parameters.
        Transient: The server stayed busy, or did not answer.
    """
    parameters = {"request": dict(request)}
    size = len(json.dumps(parameters))
    if size > _PARAMETERS:
        raise InvalidRequest(
            f"the request has {size // 1024} KiB, and Prefect takes {_PARAMETERS // 1024}",
            hint="put fewer or smaller files in; a guest can fetch big ones itself, by user data",
        )
    # Prefect's client tries again too, but gives up when a server is not up yet.
    found = _patiently(lambda: _read(deployment))
    run = _patiently(lambda: _create(found, parameters, key))
    fields = differing(run.parameters, {**found.parameters, **parameters})
    if fields:
        raise Conflict(
            conflict(key, str(run.id), fields), hint="send other requests with another id"
        )
    return str(run.id)


def _read(deployment: str) -> DeploymentResponse:
    with get_client(sync_client=True) as client:
        try:
            return client.read_deployment_by_name(deployment)
        except ObjectNotFound as error:
            raise NotFound(
                f"there is no deployment {deployment!r} on the Prefect server",
                hint="`fifty init` makes it, and `fifty serve` runs what is sent to it",
            ) from error


def _create(found: DeploymentResponse, parameters: dict[str, Any], key: str) -> Any:  # noqa: ANN401
    with get_client(sync_client=True) as client:
        try:
            return client.create_flow_run_from_deployment(
                found.id, parameters=parameters, idempotency_key=key
            )
        except PrefectHTTPStatusError as error:
            if error.response.status_code not in (400, 409, 413, 422):
                raise
            raise _refused(error.response, schema=found.enforce_parameter_schema) from error


def _refused(response: httpx.Response, *, schema: bool) -> FiftyError:
    """What the server's refusal says."""
    try:
        told = response.json()
    except ValueError:
        told = {}
    details = [str(item.get("msg", item)) for item in told.get("exception_detail", ()) if item]
    message = told.get("detail") or told.get("exception_message") or f"HTTP {response.status_code}"
    if response.status_code == httpx.codes.CONFLICT and not schema:
        return Conflict(str(message), hint="send other requests with another id")
    return InvalidRequest(f"the Prefect server refused it: {message}", details=details)


def _patiently(ask: Callable[[], Answer]) -> Answer:
    """Ask again, with longer and longer pauses, while the server is busy or does not answer."""
    deadline, pause = time.monotonic() + PATIENCE_S, 0.5
    while True:
        try:
            return ask()
        except PrefectHTTPStatusError as error:
            if error.response.status_code not in _BUSY:
                raise
            cause: Exception = error
        except httpx.TransportError as error:
            cause = error
        if time.monotonic() + pause > deadline:
            raise Transient(
                f"the Prefect server is busy, or does not answer: {cause}",
                hint="send it again with the same --request-id: it is done once",
            ) from cause
        time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - so that not all come at once
        pause = min(pause * 2, _LONGEST_PAUSE_S)

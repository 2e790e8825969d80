"""What is looked at before a flow is called: is it one of ours, and do the parameters fit.

Prefect's server takes any set of parameters for a deployment of ours (its schema is not
enforced there, since its answer names one error only). So a wrong set is answered here:
all that is wrong with it, before anything else is done.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import ArtifactCreate
from prefect.flows import Flow
from prefect.states import Failed

from blocks.errors import Denied, FiftyError, InvalidRequest
from tasks.ends import message_of
from tasks.step import error_dict
from tasks.summary import refusal_text

_ENTRYPOINT = re.compile(r"flows[./]([a-z][a-z0-9_]*)(?:\.py:|:|\.)([a-z][a-z0-9_]*)")


def find_flow(entrypoint: str) -> Flow[..., Any]:
    """The flow of our package `flows` that a deployment's entrypoint names.

    Args:
        entrypoint: `flows.create_vm.create_vm`, or `flows/create_vm.py:create_vm`.

    Raises:
        Denied: It is not one: who can write a deployment must not thereby run any program.
    """
    match = _ENTRYPOINT.fullmatch(entrypoint)
    found = None
    if match:
        module, name = match.groups()
        try:
            found = getattr(importlib.import_module(f"flows.{module}"), name, None)
        except ModuleNotFoundError:
            found = None
    if not isinstance(found, Flow) or found.fn.__module__ != f"flows.{match and match[1]}":
        raise Denied(
            f"the deployment's entrypoint {entrypoint!r} is not a flow of Fifty Steps",
            hint="this worker runs the flows of its package `flows` only",
        )
    return found


def check_parameters(flow: Flow[..., Any], given: Mapping[str, Any]) -> None:
    """Check that a run's parameters are exactly those that the flow takes.

    Raises:
        InvalidRequest: Some are unknown, or missing; all of them are named.
    """
    taken = inspect.signature(flow.fn).parameters
    needed = [name for name, one in taken.items() if one.default is inspect.Parameter.empty]
    wrong = [f"unknown parameter {name!r}" for name in given if name not in taken]
    wrong += [f"missing parameter {name!r}" for name in needed if name not in given]
    if wrong:
        raise InvalidRequest(
            f"the parameters of the run do not fit the flow {flow.name}",
            hint=f"it takes {' and '.join(repr(name) for name in taken) or 'none'}",
            details=wrong,
        )


def refuse(client: SyncPrefectClient, flow_run_id: UUID, error: FiftyError) -> None:
    """End a run that has not begun: Failed, named Refused, and an artifact that says why."""
    fault = error_dict(error)
    client.create_artifact(
        ArtifactCreate(
            key="refusal",
            type="markdown",
            data=refusal_text(fault),
            description=error.message,
            flow_run_id=flow_run_id,
        )
    )
    client.set_flow_run_state(flow_run_id, Failed(name="Refused", message=message_of(fault)))

"""What flow runs are called: by what they work on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect.runtime import flow_run


def run_name() -> str:
    """The name of a flow run: the flow's, and that of the thing it works on."""
    return f"{flow_run.flow_name} {subject_name(flow_run.parameters.get('request'))}"


def subject_name(request: Any) -> str:  # noqa: ANN401 - whatever a caller sent
    """The name of what a request is about; the request may be of any form."""
    for field in ("name", "recipe"):
        value = (
            request.get(field) if isinstance(request, Mapping) else getattr(request, field, None)
        )
        if isinstance(value, str) and value.isprintable():
            return value[:63]
    return "(no name)"

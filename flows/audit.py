"""Tell what of ours is astray on this host."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from tasks.audit_report import report_audit


@flow(name="audit", flow_run_name="audit", validate_parameters=False)
def audit() -> State[Any]:
    """Tell what of ours is astray on this host; nothing is changed."""
    return report_audit()

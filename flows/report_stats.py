"""Report how long the fifty steps take."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from blocks.resources import StatsRequest
from flows.plans import PLANS
from tasks.stats_report import report_stats as report

_AS_USUAL = StatsRequest()


@flow(name="report-stats", flow_run_name="report-stats", validate_parameters=False)
def report_stats(request: StatsRequest = _AS_USUAL) -> State[Any]:
    """Report how long each of the fifty steps took in the last builds, with a chart."""
    kind, _plan = PLANS["vm"]
    return report(request, kind.catalogue)

"""Remove from this host what nobody needs any more."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from blocks.resources import CleanRequest
from tasks.cache_cleaning import clean

_AS_USUAL = CleanRequest()


@flow(name="clean-cache", flow_run_name="clean-cache", validate_parameters=False)
def clean_cache(request: CleanRequest = _AS_USUAL) -> State[Any]:
    """Remove bases and replaced images that no VM needs, old checkpoints, and old runs."""
    return clean(request)

"""Build old images anew."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from blocks.resources import RefreshRequest
from flows.build_image import build_image
from tasks.image_refresh import refresh

_AS_USUAL = RefreshRequest()


@flow(name="refresh-images", flow_run_name="refresh-images", validate_parameters=False)
def refresh_images(request: RefreshRequest = _AS_USUAL) -> State[Any]:
    """Build old images anew by their recipes; VMs that are there keep what they have.

    A new image takes the name of the old one when it is complete; until then, and where its
    build fails, the old one stays.
    """
    return refresh(request, lambda wanted: build_image(wanted, return_state=True))

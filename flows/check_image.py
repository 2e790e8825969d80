"""Check an image's files without booting it."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from blocks.resources import CheckRequest
from flows.names import run_name
from tasks.image_check import check_image_files


@flow(name="check-image", flow_run_name=run_name, validate_parameters=False)
def check_image(request: CheckRequest) -> State[Any]:
    """Check an image's files without booting it.

    Boot loader, drivers, network, cloud-init, leftovers: each point with its evidence. The
    report is kept with the image. What only a boot can tell is for `certify-image`.
    """
    return check_image_files(request)

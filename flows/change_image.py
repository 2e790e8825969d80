"""Change what is said of an image, and who may use it."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from blocks.resources import ImageChange
from flows.names import run_name
from tasks.image_change import IMAGE_CHANGES
from tasks.one_change import carry_out


@flow(name="change-image", flow_run_name=run_name, validate_parameters=False)
def change_image(request: ImageChange) -> State[Any]:
    """Change what is said of an image, and who may use it; its file stays as it is.

    Deactivated, no new VM is made from it, and those that there are go on.
    """
    return carry_out(IMAGE_CHANGES, request)

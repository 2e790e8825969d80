"""Save an image as a file."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from blocks.resources import SaveRequest
from flows.names import run_name
from tasks.image_save import IMAGE_SAVE
from tasks.one_change import carry_out


@flow(name="save-image", flow_run_name=run_name, validate_parameters=False)
def save_image(request: SaveRequest) -> State[Any]:
    """Save an image as a file of the host, as it is or converted to raw or qcow2.

    The file is there whole or not at all; a qcow2 is checked. An encrypted image stays so.
    """
    return carry_out(IMAGE_SAVE, request)

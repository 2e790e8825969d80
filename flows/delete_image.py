"""Delete an image: its record and its file."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from blocks.resources import NamedRequest
from flows.names import run_name
from tasks.image_build import IMAGE_KIND
from tasks.session import delete


@flow(name="delete-image", flow_run_name=run_name, validate_parameters=False)
def delete_image(request: NamedRequest) -> State[Any]:
    """Delete an image: its record and its file. Refused while a VM was made from it."""
    return delete(IMAGE_KIND, request)

"""Make an image of a VM."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from blocks.resources import CaptureRequest
from flows.names import run_name
from tasks.image_build import IMAGE_KIND
from tasks.image_capture import (
    begin_capture,
    finish_capture,
    freeze_disk,
    generalise_capture,
    give_back,
    record_capture,
    validate_capture,
)
from tasks.run import Runner
from tasks.session import create


@flow(name="capture-image", flow_run_name=run_name, validate_parameters=False)
def capture_image(request: CaptureRequest) -> State[Any]:
    """Make an image of a VM's root disk, running or off, generalised.

    The VM goes on as it was: its disk is frozen for as long as it is read. Its volumes are no
    part of the image.
    """
    return create(IMAGE_KIND, request, capture_steps)


def capture_steps(run: Runner) -> None:
    """The steps of a capture, in order."""
    run(validate_capture)
    run(freeze_disk)
    run(begin_capture)
    run(generalise_capture)
    run(finish_capture)
    run(give_back)
    run(record_capture)

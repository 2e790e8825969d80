"""Make an image from another one by changing files in it."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from blocks.resources import EditRequest
from flows.names import run_name
from tasks.image_build import IMAGE_KIND
from tasks.image_edit import (
    begin_edit,
    change_files,
    finish_edit,
    record_edit,
    validate_edit,
)
from tasks.run import Runner
from tasks.session import create


@flow(name="edit-image", flow_run_name=run_name, validate_parameters=False)
def edit_image(request: EditRequest) -> State[Any]:
    """Make an image from another one by changing files in it, without booting it.

    The image itself stays as it is, and so do the VMs that were made from it.
    """
    return create(IMAGE_KIND, request, edit_steps)


def edit_steps(run: Runner) -> None:
    """The steps of an edit, in order."""
    run(validate_edit)
    run(begin_edit)
    run(change_files)
    run(finish_edit)
    run(record_edit)

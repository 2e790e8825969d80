"""Import an image from a file or a URL."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from blocks.resources import ImportRequest
from flows.names import run_name
from tasks.image_build import IMAGE_KIND
from tasks.image_import import (
    convert_image,
    fetch_image,
    inspect_image,
    record_import,
    validate_import,
)
from tasks.run import Runner
from tasks.session import create


@flow(name="import-image", flow_run_name=run_name, validate_parameters=False)
def import_image(request: ImportRequest) -> State[Any]:
    """Import an image from a file or a URL, on this host.

    It is fetched, unpacked, inspected before any program opens it, converted, and inspected
    again. What fails leaves nothing; what broke off goes on where it stopped.
    """
    return create(IMAGE_KIND, request, import_steps)


def import_steps(run: Runner) -> None:
    """The steps of an import, in order."""
    run(validate_import)
    run(fetch_image)
    run(inspect_image)
    run(convert_image)
    run(record_import)

"""Build an image by one of the recipes."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from blocks.resources import ImageRequest
from flows.names import run_name
from tasks.image_build import IMAGE_KIND, build_file, record_image, validate_image
from tasks.run import Runner
from tasks.session import create


@flow(name="build-image", flow_run_name=run_name, validate_parameters=False)
def build_image(request: ImageRequest) -> State[Any]:
    """Build an image by one of the recipes, on this host.

    `micro` takes seconds, `debian-12` some minutes. VMs that were made from an image that is
    replaced keep what they have.
    """
    return create(IMAGE_KIND, request, image_steps)


def image_steps(run: Runner) -> None:
    """The steps of an image, in order."""
    run(validate_image)
    run(build_file)
    run(record_image)

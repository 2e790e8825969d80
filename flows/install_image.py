"""Install an image from an installer's medium."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from blocks.resources.image_install import InstallRequest
from flows.names import run_name
from tasks.image_build import IMAGE_KIND
from tasks.image_install import (
    capture_disk,
    clear_away,
    define_machine,
    make_media,
    record_install,
    run_installer,
    validate_install,
)
from tasks.run import Runner
from tasks.session import create


@flow(name="install-image", flow_run_name=run_name, validate_parameters=False)
def install_image(request: InstallRequest) -> State[Any]:
    """Install an operating system from its ISO file on an empty disk, unattended.

    The installer runs in a machine of its own with the answers on a second medium, until it
    is through; then its disk becomes an image.
    """
    return create(IMAGE_KIND, request, install_steps)


def install_steps(run: Runner) -> None:
    """The steps of an installation, in order."""
    run(validate_install)
    run(make_media)
    run(define_machine)
    run(run_installer)
    run(capture_disk)
    run(record_install)
    run(clear_away)

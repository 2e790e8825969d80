"""The static check of an image: what a cloud asks of it, looked up without booting it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import BaseModel

from blocks.errors import FiftyError, Unsupported
from blocks.images.access.base import Method
from blocks.images.check import CheckReport
from blocks.resources import CheckRequest, Image
from blocks.settings import settings
from blocks.world import World, open_world
from tasks.access import identify
from tasks.image_origin import find_image, is_trusted
from tasks.policy import check_policy
from tasks.session import refused
from tasks.upkeep import asked


def check_image_files(request: BaseModel | Mapping[str, Any]) -> State[Any]:
    """Look at every point, record the report with the image, and tell it as a table.

    Args:
        request: As the flow got it: not validated.

    Returns:
        Completed, called Passed or NotPassed: looking succeeded either way.
    """
    try:
        wanted = asked(CheckRequest, request)
        world = open_world(settings())
        caller = identify(world.store, wanted.credentials)
        check_policy(caller, "image:check")
        image = find_image(world.store, caller, wanted.name)
        report = look(world, image, wanted.method)
    except FiftyError as error:
        return refused(error)
    known = {
        **(image.report or {}),
        "check": report.model_dump(mode="json", exclude={"cloud_init"}),
        "cloud_init": report.cloud_init and report.cloud_init.model_dump(mode="json"),
    }
    # Now it is known, also for an image that came from elsewhere.
    world.store.images.change(image.id, report=known, injectable=report.injectable)
    create_table_artifact(
        key="image-check",
        table=[
            {
                "point": one.title,
                "verdict": str(one.verdict),
                "evidence": "; ".join(one.evidence),
                "what to do": one.hint,
            }
            for one in report.findings
        ],
        description=f"{image.name}: {report.summary}",
    )
    words = f"{image.name}: {report.summary}"
    return Completed(name="Passed" if report.passed else "NotPassed", message=words)


def look(world: World, image: Image, method: str | None) -> CheckReport:
    """Look into an image, as a task of its own.

    Raises:
        Unsupported: It is encrypted.
    """
    if image.encrypted:
        raise Unsupported(f"the image {image.name!r} is encrypted: nothing here can look into it")
    report: CheckReport = _look(world, image, method)
    for one in report.findings:
        get_run_logger().info("%s: %s: %s", one.verdict, one.title, "; ".join(one.evidence))
    return report


@task(name="look into the image", persist_result=False, cache_policy=NO_CACHE)
def _look(world: World, image: Image, method: str | None) -> CheckReport:
    """Open the image's files without booting it, and look at every point."""
    return world.images.check(
        image,
        trusted=is_trusted(world.store, image),
        method=Method(method) if method else None,
    )

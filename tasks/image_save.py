"""Saving an image as a file of the host."""

from __future__ import annotations

from pathlib import Path

from prefect import get_run_logger

from blocks.images.saving import save
from blocks.resources import ImageFormat, SaveRequest
from blocks.state import Caller
from blocks.world import World
from tasks.image_origin import find_image
from tasks.one_change import Changes
from tasks.policy import allows


def save_image(world: World, caller: Caller, request: SaveRequest) -> str:
    """Save it: as it is, or converted. As `openstack image save`."""
    if allows(caller, "any:foreign"):
        by_id = {image.id: image for image in world.store.images.list(None)}
    else:
        by_id = {}
    image = by_id.get(request.name) or find_image(world.store, caller, request.name)
    logger = get_run_logger()

    def tell(percent: float) -> None:
        logger.info("%s: %.0f %%", image.reference, percent)

    form = ImageFormat(request.format or image.format)
    save(image, Path(request.file), form, world.settings.home, tell)
    return f"{image.reference} is saved as {request.file} ({form})"


IMAGE_SAVE = Changes(
    word="image",
    model=SaveRequest,
    policy="image:save",
    wrong=lambda _request: (),
    actions={"save": save_image},
    drawn=False,
)

"""Building old images anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from prefect import get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import BaseModel

from blocks.errors import FiftyError, NotFound
from blocks.resources import Image, RefreshRequest
from blocks.settings import settings
from blocks.state import StateStore
from blocks.state.tables.base import now
from blocks.world import open_world
from tasks.access import identify
from tasks.policy import check_policy
from tasks.session import refused
from tasks.upkeep import asked

#: The flow `build-image`, given its request.
BuildImage = Callable[[dict[str, Any]], State[Any]]


def refresh(request: BaseModel | Mapping[str, Any] | None, build: BuildImage) -> State[Any]:
    """Build the tenant's old images anew, one after the other, each in a run of its own.

    An image whose build fails stays as it was, and the others have their turn.

    Args:
        request: As the flow got it: not validated.
        build: The flow that builds an image.
    """
    try:
        wanted = asked(RefreshRequest, request)
        store = open_world(settings()).store
        caller = identify(store, wanted.credentials)
        check_policy(caller, "image:create")
        old = _old_images(store, caller.tenant_id, wanted)
    except FiftyError as error:
        return refused(error)
    if not old:
        return Completed(message=f"no image is older than {wanted.older_than_days:g} days")
    rows, failed = [], []
    for image in old:
        get_run_logger().info("%s was built at %s", image.name, image.built_at)
        state = build(
            {
                "recipe": image.recipe,
                "name": image.name,
                "rebuild": True,
                "credentials": wanted.credentials,
            }
        )
        if not state.is_completed():
            failed.append(image.name)
        rows.append(
            {
                "image": image.name,
                "built before": str(image.built_at),
                "now": "built anew" if state.is_completed() else "as it was",
                "why": "" if state.is_completed() else state.message or state.name,
            }
        )
    words = f"{len(old) - len(failed)} of {len(old)} image(s) built anew"
    create_table_artifact(key="refreshed-images", table=rows, description=words)
    if failed:
        return Failed(message=f"{words}; not {', '.join(failed)}")
    return Completed(message=words)


def _old_images(store: StateStore, tenant_id: str, wanted: RefreshRequest) -> list[Image]:
    """The tenant's images that a recipe built so long ago.

    Raises:
        NotFound: One that is named is not there, or was not built by a recipe.
    """
    mine = {
        image.name: image
        for image in store.images.list(tenant_id)
        if image.tenant_id == tenant_id and image.status == "active" and image.recipe
    }
    unknown = sorted(set(wanted.names or ()) - set(mine))
    if unknown:
        raise NotFound(
            f"no image built by a recipe is called {', '.join(unknown)}",
            hint=f"there are: {', '.join(sorted(mine)) or 'none'}",
        )
    before = now() - timedelta(days=wanted.older_than_days)
    return [
        image
        for name, image in sorted(mine.items())
        if (wanted.names is None or name in wanted.names)
        and image.built_at is not None
        and image.built_at <= before
    ]

"""A run that certifies an image: how it begins, and how it ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect import get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import BaseModel

from blocks.errors import FiftyError
from blocks.images.certification import Certificate
from blocks.settings import settings
from blocks.world import World, open_world
from tasks.at_work import flow_run_id
from tasks.ends import Kind
from tasks.run import Plan
from tasks.session import as_form, create, refused, undo_build


def certify(kind: Kind, request: BaseModel | Mapping[str, Any], plan: Plan) -> State[Any]:
    """Certify an image, after what an earlier try could not remove is removed.

    Args:
        kind: The kind of build that a certification is.
        request: As the flow got it: not validated.
        plan: The steps, in order.

    Returns:
        Completed, called Certified or NotCertified: trying succeeded either way; or Failed.
    """
    try:
        form = as_form(request)
        world = open_world(settings())
        left = _clear_earlier(kind, world, str(form.get("credentials", settings().credentials)))
    except FiftyError as error:
        return refused(error)
    if left is not None:
        return left
    # Nobody waits for a trial whose process was killed.
    state = create(kind, {**form, "on_interrupt": "rollback"}, plan)
    certificate = _made(kind, world) if state.is_completed() else None
    if certificate is None:
        return state
    name = "Certified" if certificate.passed else "NotCertified"
    return Completed(name=name, message=state.message)


def _clear_earlier(kind: Kind, world: World, credentials: str) -> State[Any] | None:
    """Undo the certifications whose undo has failed; the run's state where one fails again."""
    for build in world.store.builds.open_ends():
        mine = build.catalogue == kind.catalogue.name and build.credentials == credentials
        if mine and build.state == "needs_attention":
            get_run_logger().warning("an earlier certification of %s is undone", build.name)
            state = undo_build(kind, world, build, "rollback")
            if not state.is_completed():
                return state
    return None


def _made(kind: Kind, world: World) -> Certificate | None:
    """The certificate that this run has made."""
    for build in world.store.builds.complete():
        if build.catalogue == kind.catalogue.name and build.flow_run_id == flow_run_id():
            held = world.store.images.get(build.plan["image"]).certificate
            return Certificate.model_validate(held)
    return None

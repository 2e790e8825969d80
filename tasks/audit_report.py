"""The report of an audit: an artifact each time, an event where something is astray."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.schemas.objects import State
from prefect.events import emit_event
from prefect.states import Completed

from blocks.errors import FiftyError
from blocks.settings import settings
from blocks.world import World, open_world
from tasks.audit import Astray, audit
from tasks.session import refused

ASTRAY_EVENT = "fifty.audit.astray"
ARTIFACT = "audit"
#: An event has a size that Prefect takes at most; the artifact holds all.
_IN_EVENT = 100


def report_audit() -> State[Any]:
    """Compare this host with the state store, change nothing, and tell what is astray.

    Returns:
        Completed either way, with the count: that something is astray is what was found,
        not a failure of the search.
    """
    try:
        world = open_world(settings())
        report = audit(world)
    except FiftyError as error:
        return refused(error)
    host, astray = world.settings.host, report.astray
    if report.clean:
        words = f"nothing is astray on {host}"
        create_markdown_artifact(key=ARTIFACT, markdown=f"# {words.capitalize()}\n")
        return Completed(message=words)
    removable = sum(thing.removable for thing in astray)
    words = f"{len(astray)} thing(s) astray on {host}; `fifty audit --fix` removes {removable}"
    rows = [
        {
            "kind": thing.kind,
            "name": thing.name,
            "owner": thing.owner,
            "age (s)": None if thing.age_s is None else round(thing.age_s),
            "why": thing.why,
        }
        for thing in astray
    ]
    create_table_artifact(key=ARTIFACT, table=rows, description=words)
    _tell(world, astray)
    return Completed(message=words)


def _tell(world: World, astray: Sequence[Astray]) -> None:
    host = world.settings.host
    emit_event(
        event=ASTRAY_EVENT,
        resource={
            "prefect.resource.id": f"fifty.host.{world.site}.{host}",
            "prefect.resource.name": host,
        },
        payload={
            "count": len(astray),
            "astray": [thing.model_dump(mode="json") for thing in astray[:_IN_EVENT]],
        },
    )

"""The tags of a flow run: whose build it works on, of what, and on which host."""

from __future__ import annotations

import httpx
from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext

from blocks.state import Build

#: What a build is called that has no name that could be one (see `tasks.session`).
_NAMELESS = "(no name)"


class RunTags:
    """Keeps the tags of the flow run that we are in; the run's own tags stay."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def tell(self, build: Build) -> None:
        """Give the run what is known of its build by now; asks Prefect where that is new.

        Tags are for finding a run: a server that does not take them is told again with the
        next call, and stops nothing.
        """
        context = FlowRunContext.get()
        missing = tags_of(build) - self._told
        if not missing or context is None or context.flow_run is None:
            return
        try:
            with get_client(sync_client=True) as client:
                run = client.read_flow_run(context.flow_run.id)
                if not missing <= set(run.tags):
                    client.update_flow_run(run.id, tags=sorted({*run.tags, *missing}))
        except httpx.HTTPError as error:
            get_run_logger().warning("the run's tags could not be set: %s", error)
            return
        self._told |= missing


def tags_of(build: Build) -> set[str]:
    """`tenant:NAME`, `vm:NAME` (or `network:`, `image:`) and `host:NAME`, as far as known."""
    caller, host = build.plan.get("caller"), build.plan.get("host")
    tags = set()
    if build.name != _NAMELESS:
        tags.add(f"{build.catalogue}:{build.name}")
    if caller:
        tags.add(f"tenant:{caller['tenant']}")
    if host:
        tags.add(f"host:{host}")
    return tags

"""A VM that is there, complete and on this host: what can be changed, snapshot, captured."""

from __future__ import annotations

from blocks.errors import Conflict
from blocks.resources import Instance
from blocks.state import Build, Caller, StateStore
from tasks.policy import allows


def find_complete(store: StateStore, caller: Caller, name: str, credentials: str) -> Build:
    """The build of a VM that is to be worked on, as the caller may name it.

    Raises:
        NotFound: There is none that the caller may see.
        Conflict: It is not complete, or on another host.
    """
    foreign = allows(caller, "any:foreign")
    build = store.builds.find(
        "vm", name, caller.tenant_id, credentials=credentials, foreign=foreign
    )
    require_complete(store, build.id)
    return build


def require_complete(store: StateStore, instance_id: str) -> Instance:
    """A VM that is complete, and on this host.

    Raises:
        Conflict: It is not.
    """
    build = store.builds.get(instance_id)
    if build.state != "complete":
        raise Conflict(
            f"{build.name} is {build.state}", hint="it can be worked on when it is complete"
        )
    instance = store.instances.get(instance_id)
    if instance.host != store.host:
        raise Conflict(
            f"{build.name} is on the host {instance.host}", hint="ask for it on that host"
        )
    return instance

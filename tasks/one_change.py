"""A flow that carries out one change: who may, what is wrong with it, and a task that does it.

Each change can be repeated, and says so when there is nothing to do; what a killed one has
left is finished by the same change again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prefect import get_run_logger, task
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import BaseModel

from blocks.changes import collecting
from blocks.errors import FiftyError
from blocks.settings import settings
from blocks.state import Caller
from blocks.world import World, open_world
from tasks.access import identify
from tasks.draft import describe_all, refusal
from tasks.policy import check_policy
from tasks.session import as_form, refused
from tasks.topology_artifact import publish_topology

Action = Callable[[World, Caller, Any], str]


@dataclass(frozen=True)
class Changes:
    """The changes to one kind of thing.

    Attributes:
        word: What is changed.
        model: The request's form; it has the field `action`.
        policy: What of `POLICY` the caller must be allowed.
        wrong: What is wrong with a request whose fields have the right form, a line each.
        actions: What carries out each action; the answer is told.
        drawn: Whether it is seen in the picture of the tenant's networks.
    """

    word: str
    model: type[BaseModel]
    policy: str
    wrong: Callable[[Any], Sequence[str]]
    actions: Mapping[str, Action]
    drawn: bool = True


def carry_out(changes: Changes, request: BaseModel | Mapping[str, Any]) -> State[Any]:
    """Carry out one change, as a Prefect task of its own name.

    Returns:
        Completed, or Failed with the name Refused.
    """
    try:
        form = as_form(request)
        lines = describe_all(changes.model, form)
        if lines:
            raise refusal(f"{changes.word} request", lines)
        wanted: Any = changes.model.model_validate(form)
        lines = list(changes.wrong(wanted))
        if lines:
            raise refusal(f"{changes.word} request", lines)
        world = open_world(settings())
        caller = identify(world.store, wanted.credentials)
        check_policy(caller, changes.policy)
        words = _apply(changes, world, caller, wanted)
        if changes.drawn:
            publish_topology(world.store, caller.tenant_id)
        return Completed(message=words)
    except FiftyError as error:
        return refused(error)


def _apply(changes: Changes, world: World, caller: Caller, wanted: Any) -> str:  # noqa: ANN401
    action = changes.actions[wanted.action]

    def body(name: str) -> str:
        del name
        with collecting() as made:
            words = action(world, caller, wanted)
        for change in made:
            get_run_logger().info("%s\n  # %s", change.what, change.command)
        return words

    body.__name__ = wanted.action.replace("-", "_")
    name = wanted.name or ""
    title = f"{changes.word} {wanted.action} {name}".rstrip()
    done: str = task(name=f"{changes.word} {wanted.action}", task_run_name=title)(body)(name)
    return done

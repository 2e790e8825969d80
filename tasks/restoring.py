"""Bringing back to its host what was complete, and is not there any more.

After a reboot of the host the files are there (disks, volumes, definitions), and nothing else:
no process, link, namespace or rule. The steps that made these are done again, by the records,
as Nova does with `resume_guests_state_on_host_boot`. Restored is never undone: what fails is
told, and the data stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prefect import get_run_logger
from prefect.client.schemas.objects import State
from prefect.exceptions import TerminationSignal
from prefect.states import Cancelled, Completed

from blocks.errors import LeaseLost
from blocks.state import Build
from blocks.world import World
from tasks.at_work import at_work, flow_run_id
from tasks.cancelling import cancellable, stays_resumable
from tasks.ends import Buildable, Kind, end_build, failed_step, message_of
from tasks.run import Runner
from tasks.step import Step, error_dict
from tasks.summary import publish_summary

#: In a build's plan: it was complete, and is, or was to be, restored.
_NOTE = "restored"


@dataclass(frozen=True)
class Restoration:
    """What brings a kind of thing back.

    Attributes:
        steps: What is done again, in order.
        lost: Why a thing that is complete must be brought back to this host; no reasons
            where it need not.
        runs: Whether it is there, for who asks for a start of it.
        then: What is more to be done, by the records.
        failed: The state of a build that could not be brought back: `kept` waits for
            somebody, `restoring` for the next reconcile.
    """

    steps: tuple[Step, ...]
    lost: Callable[[Any], list[str]]
    runs: Callable[[Any], bool]
    then: Callable[[Any], None]
    failed: str

    def why_lost(self, kind: Kind, world: World, build: Build) -> list[str]:
        """Why a build must be brought back to this host; no reasons where it need not."""
        return self.lost(kind.subject(world, build)) if build.state == "complete" else []


def is_restored(build: Build) -> bool:
    """Whether a build that is kept was complete, and could not be brought back."""
    return build.state == "kept" and bool(build.plan.get(_NOTE))


def restore(kind: Kind, world: World, build: Build, again: Restoration, purpose: str) -> State[Any]:
    """Do again, under the build's lease, what this host has lost of it.

    All of it each time: the steps can be repeated, and a restore that was stopped may be
    followed by another reboot.

    Returns:
        Completed, or Failed with the name NotRestored.
    """
    store = world.store
    with at_work(kind, world, build, purpose) as subject:
        token, runner = subject.lease_token, Runner(kind.catalogue, subject)
        store.builds.update(
            build.id, lease=token, state="restoring", fault=None, flow_run_id=flow_run_id()
        )
        store.builds.note(build.id, **{_NOTE: True})
        subject.settle("restoring", None)
        numbers = [step.number for step in again.steps]
        store.journal.lose(build.id, build.generation, numbers, token)
        try:
            with cancellable():
                for step in again.steps:
                    runner(step)
                again.then(subject)
        except BaseException as error:
            if stays_resumable(error) or isinstance(error, LeaseLost):
                raise
            state = _not_restored(kind, subject, again, error)
            if isinstance(error, TerminationSignal):
                return Cancelled(message=state.message)
            if not isinstance(error, Exception):
                raise
            return state
        store.leases.require(build.id, token)
        words = subject.settle("restored", None)
        store.builds.update(build.id, lease=token, state="complete")
    publish_summary(kind.catalogue, store, store.builds.get(build.id))
    return Completed(message=words)


def _not_restored(
    kind: Kind, subject: Buildable, again: Restoration, error: BaseException
) -> State[Any]:
    """Keep a thing as far as it was brought back, and tell why it was not further."""
    fault = {**error_dict(error), "step": failed_step(subject)}
    if again.failed == "kept":
        name = subject.store.builds.get(subject.build_id).name
        hint = f"its disks are as they were; `fifty {kind.word} start {name}` tries again"
        fault["hint"] = "; ".join(filter(None, (fault["hint"], hint)))
    get_run_logger().error("%s", message_of(fault))
    return end_build(kind, subject, again.failed, fault, "NotRestored")

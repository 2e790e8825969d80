"""What happens to flow runs, as the Prefect server tells it: within a tenth of a second.

A worker learns of a new run by asking, and each question costs a SQLite server a write
transaction. So we listen to the server's events, ask when there is something to ask for,
and ask seldom otherwise. Events can be lost; what is done for one is also done without.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import UUID

from prefect.events import Event
from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventAnyResourceFilter, EventFilter, EventNameFilter
from prefect.logging.loggers import get_logger

_PREFIX = "prefect.flow-run."
_AGAIN_S = 5.0
#: States in which a run waits to be given out; a state's name is its event's name.
_WAITING = ("Scheduled", "AwaitingRetry", "Resuming", "Late", "AwaitingConcurrencySlot")
_CANCELLING = "Cancelling"


async def listen(
    work_pool: UUID, on_waiting: Callable[[], None], on_cancelling: Callable[[UUID], None]
) -> None:
    """Listen for ever; while the server cannot be reached, try again every few seconds.

    Args:
        work_pool: Whose runs.
        on_waiting: Called when a run waits to be given out.
        on_cancelling: Called when a run is to be cancelled.
    """
    names = [f"{_PREFIX}{state}" for state in (*_WAITING, _CANCELLING)]
    wanted = EventFilter(
        event=EventNameFilter(name=names),
        any_resource=EventAnyResourceFilter(id=[f"prefect.work-pool.{work_pool}"]),
    )
    while True:
        try:
            async with get_events_subscriber(wanted, reconnect_on_clean_close=True) as events:
                on_waiting()
                async for event in events:
                    if event.event == f"{_PREFIX}{_CANCELLING}":
                        on_cancelling(_flow_run(event))
                    else:
                        on_waiting()
        except Exception as error:  # noqa: BLE001 - whatever it is: asking goes on meanwhile
            get_logger("fifty.news").warning("The server's events cannot be heard: %s", error)
        await asyncio.sleep(_AGAIN_S)


def _flow_run(event: Event) -> UUID:
    return UUID(event.resource.id.removeprefix(_PREFIX))

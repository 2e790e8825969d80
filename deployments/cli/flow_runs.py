"""Running a flow in this process, against the configured Prefect API."""

from __future__ import annotations

import gc
import importlib
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from blocks.settings import settings
from deployments import catalogue, prefect_settings
from deployments.cli.output import Refusal, Terminated

_HINT = "hint: "
_DETAIL = "- "


@dataclass(frozen=True)
class Done:
    """A flow run that has ended.

    Attributes:
        url: Where it is seen in the Prefect UI.
        error: Why it failed, as `FiftyError.as_dict` gives it; None where it did not.
    """

    flow_run_id: str | None
    url: str | None
    error: dict[str, Any] | None

    def require_success(self) -> None:
        """Refuse with the flow's error where it has one.

        Raises:
            Refusal: It has.
        """
        if self.error is not None:
            raise Refusal({**self.error, "flow_run_id": self.flow_run_id, "url": self.url})


def connect() -> str:
    """Make ready for Prefect's import: the environment is set, and a server answers.

    Returns:
        The API's URL.

    Raises:
        NotFound: No server is known.
        Transient: It does not answer.
    """
    url = prefect_settings.prepare(settings(), console=False)
    prefect_settings.require_answer(url)
    return url


def run_flow(name: str, request: Mapping[str, Any]) -> Done:
    """Run `flows.NAME.NAME` here, in the main thread, to its end.

    Args:
        name: The flow's module, which is also its function's name.
        request: Its parameter `request`, as it would be sent to the API.

    Raises:
        Terminated: SIGTERM came.
        KeyboardInterrupt: SIGINT came, and the flow has undone what it had done.
    """
    url = connect()
    flow = getattr(importlib.import_module(f"flows.{name}"), name)
    # Off since the command's start. What has been imported stays for good: looking through
    # it for garbage would stop the build for half a second each time.
    gc.freeze()
    gc.enable()
    catalogue.write(settings().home, catalogue.from_tasks())
    # After connect(): it imports Prefect.
    from deployments.service.settle import cancelled_in_time, note_process

    flow = flow.with_options(on_running=[note_process])
    with _terminable():
        state = flow(dict(request), return_state=True)
    if state.is_cancelling():
        state = cancelled_in_time(state)
    flow_run_id = state.state_details.flow_run_id
    return Done(
        flow_run_id=str(flow_run_id) if flow_run_id else None,
        url=prefect_settings.run_url(url, str(flow_run_id)) if flow_run_id else None,
        error=None if state.is_completed() else _error(state),
    )


def _error(state: Any) -> dict[str, Any]:  # noqa: ANN401 - prefect's State, imported late
    """What a state's message says; our flows write it as a refusal is printed."""
    lines = str(state.message or state.name).splitlines()
    kind, colon, message = lines[0].partition(": ")
    if not colon or not kind.isidentifier():
        kind, message = state.name, lines[0]
    hints = [line.removeprefix(_HINT) for line in lines[1:] if line.startswith(_HINT)]
    return {
        "error": kind,
        "message": message,
        "hint": hints[-1] if hints else "the flow run's log in the Prefect UI tells more",
        "details": [line.removeprefix(_DETAIL) for line in lines[1:] if not line.startswith(_HINT)],
    }


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM as an exception: Prefect gives the signal on once the flow has come to rest."""

    def terminate(_number: int, _frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

"""`fifty serve`: the service of this host, in the foreground; and what it does now."""

from __future__ import annotations

import os
import sys
from datetime import datetime
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from blocks.errors import FiftyError
from blocks.settings import settings
from deployments import prefect_settings
from deployments.cli import output
from deployments.cli.context import Flag, Json, open_store, require_root
from deployments.service import record

#: As systemctl's `status` says that something does not run.
NOT_RUNNING = 3


def serve(
    *,
    status: Flag = False,
    builds: Annotated[
        int | None, Parameter(show_default=False, validator=Number(gte=1, lte=1000))
    ] = None,
    json: Json = False,
) -> int:
    """Run what the Prefect server asks for: API triggers, schedules, the UI's Run button.

    Stays in the foreground until SIGTERM or Ctrl-C. Then it takes no new runs, and those that
    run come to rest; what they were building is gone on with at the next start.

    Args:
        status: Only tell what runs; exits 0 when the service does, 3 when not.
        builds: How many builds at a time (default: FIFTY_BUILDS, else as it was, at first 4).
    """
    if status:
        return _status(json)
    require_root("fifty serve")
    if builds is not None:
        os.environ["FIFTY_BUILDS"] = str(builds)
        settings.cache_clear()
    open_store()
    url = prefect_settings.prepare(settings(), console=False)
    prefect_settings.require_answer(url)
    with record.alone(settings().home) as serving:
        tell = output.note if json else _say
        tell(f"serving {settings().home} as process {serving.process.pid}; Prefect is {url}")
        # After prepare(): it imports Prefect.
        from deployments.service.serving import serve as serve_until_told

        serve_until_told(settings(), serving, lambda line: tell(output.plain(line)))
    if json:
        output.document({"pid": serving.process.pid, "since": serving.since.isoformat()})
    return 0


def _say(line: str) -> None:
    output.say(line)
    sys.stdout.flush()


def _status(as_json: bool) -> int:
    found = _found()
    if as_json:
        output.document(found)
    else:
        _show(found)
    return 0 if found["worker"]["running"] else NOT_RUNNING


def _found() -> dict[str, Any]:
    store = open_store()
    serving = record.running(settings().home)
    found: dict[str, Any] = {
        "home": str(settings().home),
        "prefect": {"url": None, "answers": False},
        "worker": {
            "running": serving is not None,
            "ready": serving is not None and serving.ready is not None,
            "pid": serving.process.pid if serving else None,
            "since": serving.since.isoformat() if serving else None,
        },
        "running": [],
        "queued": None,
        "builds": None,
        "schedules": [],
    }
    try:
        found["prefect"]["url"] = prefect_settings.prepare(settings(), console=False)
        prefect_settings.require_answer(found["prefect"]["url"])
    except FiftyError as error:
        found["prefect"]["error"] = error.message
        return found
    found["prefect"]["answers"] = True
    from deployments.service.status import look

    return {**found, **look(settings(), store)}


def _show(found: dict[str, Any]) -> None:
    prefect, worker = found["prefect"], found["worker"]
    answers = "answers" if prefect["answers"] else f"does not answer ({prefect['error']})"
    state = "does not run"
    if worker["running"]:
        doing = "runs" if worker["ready"] else "is starting"
        state = f"{doing}, as process {worker['pid']}, since {_time(worker['since'])}"
    output.facts(
        (
            ("prefect", f"{prefect['url'] or 'no server is known'}: {answers}"),
            ("worker", state),
            ("at a time", f"{found['builds']} builds" if found["builds"] else None),
            ("queued", found["queued"]),
        )
    )
    if not prefect["answers"]:
        return
    output.say()
    output.table(
        ("RUN", "STATE", "SINCE", "STEP"),
        ((one["name"], one["state"], _time(one["since"]), one["step"]) for one in found["running"]),
        "No run is running.",
    )
    output.say()
    output.table(
        ("SCHEDULE", "ON", "NEXT"),
        (
            (one["deployment"], "yes" if one["active"] else "no", _time(one["next"]))
            for one in found["schedules"]
        ),
        "Nothing is scheduled.",
    )


def _time(iso: str | None) -> str | None:
    """A time as this host's clock shows it."""
    return datetime.fromisoformat(iso).astimezone().isoformat(" ", "seconds") if iso else None

"""The flows that are served: the one list that deployments, schedules and queues come from.

`python -m deployments.served_flows` renders it into `deployments/prefect.yaml`, for
`prefect deploy`; `deployments.registration` takes it to a Prefect server without that.
This module imports neither Prefect nor the flows.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

#: The work pool, and the type of the worker that serves it.
WORK_POOL = "fifty"
#: Deployments are called `<flow>/fifty`.
DEPLOYMENT = "fifty"
#: For what builds something, so many at a time as the queue's limit says.
BUILDS = "builds"
#: For all the rest; a delete never waits behind builds.
DEFAULT = "default"
PREFECT_FILE = Path(__file__).with_name("prefect.yaml")

_HEAD = """\
# Rendered from deployments/served_flows.py by `python -m deployments.served_flows`; change
# it there. `prefect --no-prompt deploy --all --prefect-file deployments/prefect.yaml`
# takes it to a server; `fifty serve` and `fifty init` do the same by themselves.
"""


@dataclass(frozen=True)
class Schedule:
    """When a flow runs by itself: every so many seconds, or by a cron line.

    Attributes:
        every_s: Seconds between two runs.
        cron: Five fields, in UTC.
        parameters: What the scheduled run is given.
    """

    every_s: int | None = None
    cron: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.every_s is None) == (self.cron is None):
            raise ValueError("a schedule has either an interval or a cron line")


@dataclass(frozen=True)
class ServedFlow:
    """A flow that is served.

    Attributes:
        name: The flow's name.
        queue: The work queue its runs wait in.
        tags: Tags of the deployment and of its runs.
        schedule: When it runs by itself; on from the start.
        alone: One run at a time: one that comes meanwhile is cancelled.
    """

    name: str
    queue: str
    tags: tuple[str, ...]
    schedule: Schedule | None = None
    alone: bool = False

    @property
    def function(self) -> str:
        """The flow's function, and its module in `flows`."""
        return self.name.replace("-", "_")

    @property
    def entrypoint(self) -> str:
        """Where Prefect finds the flow, from any directory."""
        return f"flows.{self.function}.{self.function}"

    @property
    def deployment(self) -> str:
        """The deployment's full name."""
        return f"{self.name}/{DEPLOYMENT}"

    @property
    def version(self) -> str:
        """Changes when, and only when, what is said here changes.

        A deployment with this version that differs was changed by an operator.
        """
        said = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()[:12]

    def load(self) -> Any:  # noqa: ANN401 - a Flow of Prefect, which is not imported here
        """The flow itself; imports Prefect."""
        return getattr(importlib.import_module(f"flows.{self.function}"), self.function)


SERVED: tuple[ServedFlow, ...] = (
    ServedFlow("create-vm", BUILDS, ("vm",)),
    ServedFlow("resume-vm", BUILDS, ("vm",)),
    ServedFlow("rollback-vm", DEFAULT, ("vm",)),
    ServedFlow("start-vm", BUILDS, ("vm",)),
    ServedFlow("delete-vm", DEFAULT, ("vm",)),
    ServedFlow("create-snapshot", DEFAULT, ("vm",)),
    ServedFlow("revert-snapshot", DEFAULT, ("vm",)),
    ServedFlow("delete-snapshot", DEFAULT, ("vm",)),
    ServedFlow("create-network", DEFAULT, ("network",)),
    ServedFlow("delete-network", DEFAULT, ("network",)),
    ServedFlow("change-router", DEFAULT, ("network",)),
    ServedFlow("change-floating-ip", DEFAULT, ("network",)),
    ServedFlow("change-security-group", DEFAULT, ("network",)),
    ServedFlow("change-port", DEFAULT, ("vm", "network")),
    ServedFlow("change-volume", DEFAULT, ("vm",)),
    ServedFlow("build-image", BUILDS, ("image",)),
    ServedFlow("import-image", BUILDS, ("image",)),
    ServedFlow("install-image", BUILDS, ("image",)),
    ServedFlow("edit-image", BUILDS, ("image",)),
    ServedFlow("capture-image", BUILDS, ("image",)),
    ServedFlow("certify-image", BUILDS, ("image", "vm")),
    ServedFlow("check-image", DEFAULT, ("image",)),
    ServedFlow("save-image", DEFAULT, ("image",)),
    ServedFlow("change-image", DEFAULT, ("image",)),
    ServedFlow("delete-image", DEFAULT, ("image",)),
    ServedFlow("finish-build", BUILDS, ("upkeep",)),
    ServedFlow(
        "reconcile",
        DEFAULT,
        ("upkeep",),
        schedule=Schedule(every_s=60, parameters={"request": {"dispatch": True}}),
        alone=True,
    ),
    ServedFlow("audit", DEFAULT, ("upkeep",), schedule=Schedule(cron="7 * * * *"), alone=True),
    ServedFlow(
        "refresh-images",
        BUILDS,
        ("upkeep", "image"),
        schedule=Schedule(cron="30 2 * * 0"),
        alone=True,
    ),
    ServedFlow(
        "clean-cache", DEFAULT, ("upkeep",), schedule=Schedule(cron="30 4 * * *"), alone=True
    ),
    ServedFlow(
        "report-stats", DEFAULT, ("upkeep",), schedule=Schedule(cron="0 5 * * *"), alone=True
    ),
    ServedFlow("run-in-vm", BUILDS, ("vm", "job")),
)


def entry(served: ServedFlow) -> dict[str, Any]:
    """A flow's entry in `prefect.yaml`; imports the flow, for its description.

    Args:
        served: The flow.
    """
    found: dict[str, Any] = {
        "name": DEPLOYMENT,
        "entrypoint": served.entrypoint,
        "description": served.load().description,
        "version": served.version,
        "tags": ["fifty", *served.tags],
        # Wrong parameters are answered by the run: all that is wrong with them, at once.
        "enforce_parameter_schema": False,
        "work_pool": {"name": WORK_POOL, "work_queue_name": served.queue},
        "schedules": [schedule_entry(served.schedule)] if served.schedule else [],
    }
    if served.alone:
        found["concurrency_limit"] = {"limit": 1, "collision_strategy": "CANCEL_NEW"}
    return found


def schedule_entry(schedule: Schedule) -> dict[str, Any]:
    """A schedule's entry in `prefect.yaml`."""
    when: dict[str, Any] = (
        {"cron": schedule.cron, "timezone": "UTC"}
        if schedule.cron
        else {"interval": schedule.every_s}
    )
    return {
        "slug": DEPLOYMENT,
        **when,
        "active": True,
        **({"parameters": dict(schedule.parameters)} if schedule.parameters else {}),
    }


def render() -> str:
    """The content of `deployments/prefect.yaml`."""
    # Loaded where it is rendered only: everybody else imports this module for the list.
    import yaml  # noqa: PLC0415

    content = {
        # The flows are installed with Fifty Steps: nothing is fetched before a run.
        "pull": [],
        "deployments": [entry(served) for served in SERVED],
    }
    return _HEAD + yaml.safe_dump(content, sort_keys=False, width=100, allow_unicode=True)


def main() -> None:
    """Render the file."""
    os.environ.setdefault("PREFECT_SERVER_ALLOW_EPHEMERAL_MODE", "false")
    PREFECT_FILE.write_text(render())


if __name__ == "__main__":
    main()

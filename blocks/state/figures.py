"""How long builds took, step by step: what `fifty stats` and the daily report tell."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy import select

from blocks.state.database import Database
from blocks.state.journal import Entry, StepState
from blocks.state.tables import BuildRow, InstanceRow

#: Where a build's plan keeps the figures of its completion: undoing it for a delete
#: overwrites the journal's times.
FIGURES = "figures"


class StepFigures(BaseModel):
    """What a step took in the builds that were looked at; seconds of its last attempt.

    Attributes:
        builds: In how many of them it was run.
        retries: Attempts beyond the first one, of all of them together.
    """

    model_config = ConfigDict(frozen=True)

    step: int
    builds: int
    median_s: float
    p95_s: float
    longest_s: float
    retries: int


class ClockFigures(BaseModel):
    """One of the three clocks, from a build's acceptance."""

    model_config = ConfigDict(frozen=True)

    clock: str
    builds: int
    median_s: float
    p95_s: float


class BuildFigures(BaseModel):
    """Figures of the last builds of VMs.

    Attributes:
        completed: How many builds that became ACTIVE were looked at, the last ones.
        ended: How the last builds ended, whatever became of them: how many each.
        steps: By number.
        most_retried: Numbers of the steps that were retried, the most first.
        slowest: Numbers of the steps with the longest medians, the longest first.
    """

    model_config = ConfigDict(frozen=True)

    completed: int
    ended: dict[str, int]
    clocks: list[ClockFigures]
    steps: list[StepFigures]
    most_retried: list[int]
    slowest: list[int]


def durations(entries: Sequence[Entry]) -> dict[str, list[float]]:
    """A finished build's figures for its plan: seconds and attempts, by step."""
    return {
        str(entry.step): [
            round((entry.finished_at - entry.started_at).total_seconds(), 6),
            entry.attempts,
        ]
        for entry in entries
        if entry.state is StepState.DONE and entry.started_at and entry.finished_at
    }


def look(database: Database, last: int, *, named: int = 5) -> BuildFigures:
    """Work out the figures.

    Args:
        database: The state store's.
        last: How many builds to look at: completed ones for the times, all for the ends.
        named: How many steps `most_retried` and `slowest` name at most.
    """
    completed = BuildRow.plan[FIGURES].as_string().is_not(None)
    newest = BuildRow.accepted_at.desc()
    vms = BuildRow.catalogue == "vm"
    with database.read() as session:
        found = session.execute(
            select(BuildRow.plan[FIGURES], InstanceRow.clocks)
            .outerjoin(InstanceRow, InstanceRow.id == BuildRow.id)
            .where(vms, completed)
            .order_by(newest)
            .limit(last)
        ).all()
        ended = session.execute(
            select(BuildRow.state, completed).where(vms).order_by(newest).limit(last)
        ).all()
    steps = _steps([figures for figures, _clocks in found])
    retried = sorted((s for s in steps if s.retries), key=lambda s: (-s.retries, s.step))
    slowest = sorted(steps, key=lambda s: (-s.median_s, s.step))
    return BuildFigures(
        completed=len(found),
        ended=dict(Counter("complete" if was else state for state, was in ended).most_common()),
        clocks=_clocks([clocks or {} for _figures, clocks in found]),
        steps=steps,
        most_retried=[s.step for s in retried[:named]],
        slowest=[s.step for s in slowest[:named]],
    )


def _steps(builds: Sequence[Mapping[str, Sequence[float]]]) -> list[StepFigures]:
    known: dict[int, list[Sequence[float]]] = {}
    for figures in builds:
        for step, taken in figures.items():
            known.setdefault(int(step), []).append(taken)
    return [
        StepFigures(
            step=step,
            builds=len(taken),
            median_s=statistics.median(seconds for seconds, _attempts in taken),
            p95_s=p95([seconds for seconds, _attempts in taken]),
            longest_s=max(seconds for seconds, _attempts in taken),
            retries=sum(int(attempts) - 1 for _seconds, attempts in taken),
        )
        for step, taken in sorted(known.items())
    ]


def _clocks(builds: Sequence[Mapping[str, Any]]) -> list[ClockFigures]:
    found = []
    for clock in ("running_s", "booted_s", "login_s"):
        taken = [float(clocks[clock]) for clocks in builds if clocks.get(clock) is not None]
        if taken:
            found.append(
                ClockFigures(
                    clock=clock,
                    builds=len(taken),
                    median_s=statistics.median(taken),
                    p95_s=p95(taken),
                )
            )
    return found


def p95(values: Sequence[float]) -> float:
    """The 95th percentile, between the values that were seen; of one value, that one."""
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=20, method="inclusive")[-1]

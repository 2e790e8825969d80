"""The report of `fifty stats` as an artifact: the chart, and the figures behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import BaseModel

from blocks.errors import FiftyError
from blocks.resources import StatsRequest
from blocks.settings import settings
from blocks.state.figures import BuildFigures, look
from blocks.world import open_world
from tasks.session import refused
from tasks.stats_chart import chart
from tasks.step import Catalogue
from tasks.summary import cell
from tasks.upkeep import asked

ARTIFACT = "build-stats"


def report_stats(request: BaseModel | Mapping[str, Any] | None, catalogue: Catalogue) -> State[Any]:
    """Publish the figures of the last builds of VMs.

    Args:
        request: As the flow got it: not validated.
        catalogue: The fifty, for their titles.
    """
    try:
        wanted = asked(StatsRequest, request)
        found = look(open_world(settings()).store.database, wanted.last)
    except FiftyError as error:
        return refused(error)
    if not found.steps:
        return Completed(message="no VM was built yet")
    words = f"the last {found.completed} build(s)"
    titles = {number: step.title for number, step in catalogue.steps.items()}
    create_markdown_artifact(key=ARTIFACT, markdown=_render(found, titles), description=words)
    return Completed(message=words)


def _render(found: BuildFigures, titles: Mapping[int, str]) -> str:
    def named(steps: list[int]) -> str:
        return ", ".join(f"{step:02d} · {cell(titles.get(step, ''))}" for step in steps)

    ended = ", ".join(f"{count} {cell(state)}" for state, count in found.ended.items())
    return "\n".join(
        [
            f"# How long the fifty steps take: the last {found.completed} build(s)",
            "",
            f"![Median and 95th percentile of each step]({chart(found.steps, titles)})",
            "",
            "Dark: the median; light: the 95th percentile; each row's numbers say both.",
            "",
            *(
                f"- From acceptance to {clock.clock.removesuffix('_s')}: median "
                f"{clock.median_s:.1f} s, 95th percentile {clock.p95_s:.1f} s"
                for clock in found.clocks
            ),
            f"- Slowest: {named(found.slowest)}",
            f"- Most retried: {named(found.most_retried) or 'none was'}",
            f"- The last builds ended: {ended}",
            "",
            "| step | builds | median (s) | p95 (s) | longest (s) | retries |",
            "|---|--:|--:|--:|--:|--:|",
            *(
                f"| {step.step:02d} · {cell(titles.get(step.step, ''))} | {step.builds} "
                f"| {step.median_s:.3f} | {step.p95_s:.3f} | {step.longest_s:.3f} "
                f"| {step.retries} |"
                for step in found.steps
            ),
        ]
    )

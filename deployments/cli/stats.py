"""`fifty stats`: how long the steps of the last builds took, without Prefect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from blocks.errors import InvalidRequest
from blocks.settings import settings
from blocks.state.figures import BuildFigures, look
from deployments import catalogue
from deployments.cli import output
from deployments.cli.context import Json, open_store


def stats(*, last: int = 100, json: Json = False) -> None:
    """Tell the median and 95th percentile of each step over the last builds of VMs.

    Also which steps were retried most and which are the slowest, and how builds ended.

    Args:
        last: How many builds to look at.
    """
    if last < 1:
        raise InvalidRequest("--last must be 1 or more")
    found = look(open_store().database, last)
    titles = {step.number: step.title for step in catalogue.read(settings().home, "vm")}
    if json:
        steps = [{"title": titles.get(s.step, ""), **s.model_dump()} for s in found.steps]
        output.document({**found.model_dump(), "steps": steps})
        return
    _tell(found, titles)


def _tell(found: BuildFigures, titles: Mapping[int, str]) -> None:
    output.table(
        ("STEP", "", "BUILDS", "MEDIAN", "P95", "LONGEST", "RETRIES"),
        (
            (
                f"{step.step:02d}",
                titles.get(step.step, ""),
                step.builds,
                f"{step.median_s:.3f} s",
                f"{step.p95_s:.3f} s",
                f"{step.longest_s:.3f} s",
                step.retries,
            )
            for step in found.steps
        ),
        "No VM was built yet. `fifty vm create NAME --image I --network N` makes one.",
    )
    if not found.ended:
        return
    output.say()
    ended = ", ".join(f"{count} {state}" for state, count in found.ended.items())
    output.facts(
        (
            ("last builds", ended),
            *(
                (
                    f"to {clock.clock.removesuffix('_s')}",
                    f"median {clock.median_s:.1f} s, 95th percentile {clock.p95_s:.1f} s",
                )
                for clock in found.clocks
            ),
            ("slowest", _named(found.slowest, titles)),
            ("most retried", _named(found.most_retried, titles) or "none was retried"),
        )
    )


def _named(steps: Sequence[int], titles: Mapping[int, str]) -> str:
    return ", ".join(f"{step:02d} {titles.get(step, '')}".rstrip() for step in steps)

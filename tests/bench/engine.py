"""What the engine costs a step: fifty empty steps, against plain Prefect tasks."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from statistics import median
from typing import TYPE_CHECKING, Any

from tests.bench.figures import Figure, of_samples, say
from tests.cloud import Cloud

if TYPE_CHECKING:
    from tasks.run import Runner
    from tasks.step import Catalogue

TARGET_MS = 20.0
STEPS = range(1, 51)


def measure(cloud: Cloud, runs: int) -> list[Figure]:
    """The engine's cost a step, as `Runner` runs steps under a build's lease."""
    # Here, because it imports Prefect, which reads its settings when it is imported.
    from blocks.settings import settings
    from deployments import prefect_settings

    prefect_settings.prepare(settings(), console=False)
    from prefect import flow

    catalogue, plain = _empty_steps(), _plain_task()
    ours: list[list[float]] = []
    theirs: list[list[float]] = []

    @flow(name="bench-engine")
    def bench() -> None:
        from tasks.run import Runner, lease
        from tasks.vm_build import VmBuild

        subject = VmBuild(cloud.world, _build(cloud))
        with lease(subject, "bench") as token:
            subject.lease_token = token
            runner = Runner(catalogue, subject)
            theirs.append(_plain(plain))
            ours.append(_steps(catalogue, runner))

    for run in range(runs + 1):
        bench()
        say(f"engine {run}: {median(ours[-1]):.1f} ms a step, Prefect {median(theirs[-1]):.1f} ms")
    # The first run warms up.
    del ours[0], theirs[0]
    cost = of_samples("the engine: a step", [median(one) for one in ours], "ms", TARGET_MS)
    cost.notes = [
        f"the median of fifty empty steps, each run; the dearest {max(map(max, ours)):.0f} ms",
        "journal, lease, arguments, checkpoint, Prefect's task run; from call to return",
    ]
    ratio = of_samples(
        "the engine: a step / a plain Prefect task",
        [median(one) / median(other) for one, other in zip(ours, theirs, strict=True)],
        "",
    )
    return [cost, ratio]


def _timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000


def _steps(catalogue: Catalogue, runner: Runner) -> list[float]:
    return [_timed(lambda step=step: runner(step)) for step in catalogue.steps.values()]  # type: ignore[misc]


def _plain(task: Callable[[int], None]) -> list[float]:
    return [_timed(lambda number=number: task(number)) for number in STEPS]  # type: ignore[misc]


def _empty_steps() -> Catalogue:
    """Fifty steps that do nothing."""
    from blocks.state import StateStore
    from tasks.step import Catalogue
    from tasks.vm_build import VmBuild

    catalogue = Catalogue("bench", VmBuild)
    for number in STEPS:

        @catalogue.stage("A")(number, f"Do nothing {number}")
        def nothing(store: StateStore) -> None:
            """Do nothing."""

    return catalogue


def _plain_task() -> Callable[[int], None]:
    from prefect import task

    @task
    def plain(number: int) -> None:
        """Do nothing."""

    return plain


def _build(cloud: Cloud) -> Any:  # noqa: ANN401 - a Build
    build, _new = cloud.world.store.builds.open(
        build_id=str(uuid.uuid4()),
        catalogue="bench",
        name="bench",
        credentials="default",
        request={},
        request_id=str(uuid.uuid4()),
        flow_run_id=None,
        policy="rollback",
    )
    return build

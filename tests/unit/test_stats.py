"""`fifty stats`: figures of a state store with builds whose times are known."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.settings import settings
from blocks.state.figures import FIGURES, p95
from deployments.cli.app import run
from tests.unit.cli_store import Filled


@pytest.fixture(name="filled")
def _filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Filled]:
    monkeypatch.setenv("FIFTY_HOME", str(tmp_path))
    settings.cache_clear()
    filled = Filled(tmp_path)
    yield filled
    filled.store.database.dispose()
    settings.cache_clear()


def add(filled: Filled, name: str, state: str, figures: dict[str, list[float]] | None) -> None:
    build = filled.add_build(name)
    filled.store.builds.update(build.id, state=state)
    if figures is not None:
        filled.store.builds.note(build.id, **{FIGURES: figures})


def test_the_95th_percentile_lies_between_the_values_that_were_seen() -> None:
    assert p95([3.0]) == 3.0
    assert p95([1.0, 2.0]) == pytest.approx(1.95)
    assert p95([float(n) for n in range(101)]) == pytest.approx(95.0)


def test_medians_retries_and_ends_of_the_last_builds(
    filled: Filled, capsys: pytest.CaptureFixture[str]
) -> None:
    add(filled, "oldest", "complete", {"1": [100.0, 9], "2": [100.0, 9]})
    for count, seconds in enumerate((1.0, 3.0, 2.0)):
        state = "deleted" if count else "complete"  # a build counts when its VM has gone too
        add(filled, f"vm{count}", state, {"1": [0.01, 1], "2": [seconds, 1 + count]})
    add(filled, "gone", "undone", None)

    assert run(["stats", "--last", "4", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ended"] == {"complete": 3, "undone": 1}
    assert told["completed"] == 4  # the ends are of the last four, the times of four completed
    two = told["steps"][1]
    assert (two["step"], two["title"], two["builds"]) == (2, "Do 2", 4)
    assert two["median_s"] == 2.5
    assert two["longest_s"] == 100.0
    assert two["retries"] == 8 + 0 + 1 + 2
    assert told["most_retried"] == [2, 1]
    assert told["slowest"] == [2, 1]

    assert run(["stats", "--last", "3"]) == 0
    text = capsys.readouterr().out
    assert "02    Do 2  3       2.000 s" in text
    assert "most retried  02 Do 2" in text


def test_without_any_build_it_says_what_to_do(
    filled: Filled, capsys: pytest.CaptureFixture[str]
) -> None:
    del filled
    assert run(["stats"]) == 0
    assert "fifty vm create" in capsys.readouterr().out
    assert run(["stats", "--last", "0"]) == 1

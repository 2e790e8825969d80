"""Which cases there are, and which of them a run takes."""

from __future__ import annotations

import pytest

from tests.matrix.cases import RESUMABLE, STEPS, cases_of, chosen


def test_every_step_is_resumed_once_and_rolled_back_after_every_other_stop() -> None:
    for step in STEPS.values():
        cases = cases_of(step)
        stopped = {case.title: case.then for case in cases if case.title in RESUMABLE}
        assert sorted(stopped.values()) == ["resume", "rollback", "rollback"], step
        assert ("undo" in {case.title for case in cases}) == (step.undo is not None)


def test_the_thirds_are_all_of_it_and_each_resumes_after_every_kind_of_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = []
    for third in ("0", "1", "2"):
        monkeypatch.setenv("MATRIX", third)
        steps, _how = chosen()
        resumed = {
            (case.title, case.when if case.what == "term" else "")
            for step in steps
            for case in cases_of(STEPS[step])
            if case.then == "resume"
        }
        assert resumed == {
            *((title, "") for title in RESUMABLE if title != "term"),
            ("term", "before"),
            ("term", "after"),
        }
        found += steps
    monkeypatch.setenv("MATRIX", "all")
    assert sorted(found) == chosen()[0] == sorted(STEPS)


def test_the_commit_chooses_and_without_one_the_day_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MATRIX", raising=False)
    monkeypatch.setattr("tests.matrix.cases._commit", lambda: "ff04")
    assert chosen() == ([step for step in STEPS if step % 3 == 0xFF04 % 3], chosen()[1])
    assert "by commit ff04" in chosen()[1]
    monkeypatch.undo()
    monkeypatch.delenv("MATRIX", raising=False)
    monkeypatch.setenv("PATH", "")
    steps, how = chosen()
    assert steps
    assert how.endswith("by today's date")

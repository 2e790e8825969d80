"""What is done to a step, and what must come of it; derived from the catalogue."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from flows.plans import PLANS
from tasks.step import Step
from tests.service.triggers import MICRO

#: The fifty; the import of the plans is what fills the catalogue.
STEPS = PLANS["vm"][0].catalogue.steps

#: The columns of the table.
TITLES = ("raise before", "raise after", "kill before", "kill after", "term", "cancel", "undo")
#: After which of these a step's VM is resumed, by turns; after the others it is rolled back.
RESUMABLE = ("kill before", "kill after", "term")


@dataclass(frozen=True)
class Case:
    """One build with one fault.

    Attributes:
        step: The step that is broken.
        what: How: `raise`, `kill` (-9), `term` (SIGTERM), `cancel` (by Prefect's API), `undo`
            (its undo is killed).
        when: `before` or `after` its effect.
        then: What is done with a build that stopped: `resume` or `rollback`; nothing where the
            build itself is to come to its end.
    """

    step: int
    what: str
    when: str
    then: str = ""

    @property
    def title(self) -> str:
        """The column of the table."""
        return f"{self.what} {self.when}" if self.what in ("raise", "kill") else self.what

    @property
    def vm(self) -> str:
        """The name of its VM."""
        return f"m{self.step:02d}-{self.title.replace(' ', '-')}"

    @property
    def fault(self) -> str:
        """FIFTY_FAULT."""
        if self.what == "undo":
            return f"{self.step}:raise:after,u{self.step}:kill:{self.when}"
        what = "hang" if self.what in ("term", "cancel") else self.what
        return f"{self.step}:{what}:{self.when}"

    @property
    def request(self) -> dict[str, object]:
        """What is asked for; a volume, so that every step has something to do."""
        return {**MICRO, "name": self.vm, "volumes": [1], "floating": True}


def cases_of(step: Step) -> list[Case]:
    """All cases of a step; it is both resumed and rolled back among them.

    What is resumed goes round by threes, so that a third of the steps has all kinds of it;
    what hangs, by twos.
    """
    number = step.number
    early, late = ("before", "after") if number // 2 % 2 else ("after", "before")
    found = [
        Case(number, "raise", "before"),
        Case(number, "raise", "after"),
        Case(number, "kill", "before", "rollback"),
        Case(number, "kill", "after", "rollback"),
        Case(number, "term", early, "rollback"),
        Case(number, "cancel", late),
    ]
    if step.undo is not None:
        found.append(Case(number, "undo", early, "rollback"))
    resumed = RESUMABLE[number // 3 % 3]
    return [
        Case(number, case.what, case.when, "resume") if case.title == resumed else case
        for case in found
    ]


def chosen() -> tuple[list[int], str]:
    """The steps of this run, and how they were chosen.

    MATRIX is `all` for all of them, or 0, 1 or 2 for a third; without it the commit says
    which third it is, or the day, where there is no commit.
    """
    wanted = os.environ.get("MATRIX", "")
    if wanted == "all":
        return list(STEPS), "all steps"
    commit = "" if wanted else _commit()
    third = int(wanted) if wanted else _third_of(commit)
    why = "by MATRIX" if wanted else f"by commit {commit[:10]}" if commit else "by today's date"
    return [step for step in STEPS if step % 3 == third], f"third {third} of 0 to 2, {why}"


def _third_of(commit: str) -> int:
    return (int(commit, 16) if commit else time.gmtime().tm_yday) % 3


def _commit() -> str:
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            cwd=Path(__file__).parent,
            check=False,
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""

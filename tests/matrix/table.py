"""The matrix's table: a row a step, a column a fault."""

from __future__ import annotations

import time

from tests.matrix.cases import STEPS, TITLES, Case

_WIDTH = max(len(title) for title in TITLES) + 2
_LABEL = max(len(step.label) for step in STEPS.values()) + 2


class Table:
    """What came of every case."""

    def __init__(self) -> None:
        self._cells: dict[tuple[int, str], str] = {}
        self._seconds: dict[int, float] = {}
        self._began = time.monotonic()

    def note(self, case: Case, ended: str) -> None:
        """Note in a word how a case ended, as it should."""
        self._cells[case.step, case.title] = ended

    def note_time(self, step: int, seconds: float) -> None:
        """Note how long all cases of a step took."""
        self._seconds[step] = seconds

    def lines(self, how: str) -> list[str]:
        """The table, with those steps that were run; then how many, and how long it took.

        Args:
            how: How the steps were chosen.
        """
        if not self._seconds:
            return []
        head = f"{'step':<{_LABEL}}" + "".join(f"{title:<{_WIDTH}}" for title in TITLES) + "s"
        rows = [
            f"{STEPS[step].label:<{_LABEL}}"
            + "".join(f"{self._cell(step, title):<{_WIDTH}}" for title in TITLES)
            + f"{self._seconds[step]:.0f}"
            for step in sorted(self._seconds)
        ]
        words = f"{len(rows)} of {len(STEPS)} steps ({how}), {len(self._cells)} cases"
        minutes, seconds = divmod(round(time.monotonic() - self._began), 60)
        return [head, *rows, f"{words}, in {minutes} min {seconds} s"]

    def _cell(self, step: int, title: str) -> str:
        has = title != "undo" or STEPS[step].undo is not None
        return self._cells.get((step, title), "FAILED") if has else "-"


TABLE = Table()

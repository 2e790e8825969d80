"""What a benchmark gives: a figure with its target, and what it is made of."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any


@dataclass
class Figure:
    """A measured figure.

    Attributes:
        name: What it is.
        value: The median, in `unit`.
        target: The most that it may be; None where nothing was promised.
        samples: One value a run.
        notes: What it is made of, a line each.
    """

    name: str
    value: float
    unit: str
    target: float | None = None
    samples: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def missed(self) -> bool:
        """Whether the target was missed."""
        return self.target is not None and self.value > self.target

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {**asdict(self), "missed": self.missed}


def of_samples(
    name: str, samples: Sequence[float], unit: str, target: float | None = None
) -> Figure:
    """A figure that is the median of its samples."""
    return Figure(name, median(samples), unit, target, list(samples))


def say(words: str) -> None:
    """Tell a person how far we are."""
    print(words, file=sys.stderr, flush=True)


def table(figures: Sequence[Figure]) -> str:
    """The figures as a table, each with its notes below."""
    width = max(len(figure.name) for figure in figures)
    lines = [f"{'':{width}}  {'median':>10} {'target':>10}  runs"]
    for figure in figures:
        target = f"<= {figure.target:g}" if figure.target is not None else "-"
        value = f"{figure.value:.2f} {figure.unit}".strip()
        samples = " ".join(f"{sample:.2f}" for sample in figure.samples)
        mark = "  MISSED" if figure.missed else ""
        lines.append(f"{figure.name:{width}}  {value:>10} {target:>10}  {samples}{mark}")
        lines += [f"{'':{width}}    {note}" for note in figure.notes]
    return "\n".join(lines)

"""The chart of the steps' durations: an SVG inside of a Markdown artifact.

Prefect's UI shows an image with a `data:` URI in Markdown; it strips SVG elements from it
and shows mermaid's source as text (both tried with 3.8.8).
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

from blocks.state.figures import StepFigures

_ROW, _TOP, _LABELS, _WIDTH, _BARS, _VALUES = 20, 34, 290, 1020, 560, 140
#: The scale's ends, seconds: it is logarithmic, for steps take from 1 ms to minutes.
_LEAST = 0.001
_INK, _GRID, _MEDIAN, _P95, _PAPER = "#1f2933", "#d5dbe1", "#2f6db5", "#a9c8ec", "#ffffff"


def chart(steps: Sequence[StepFigures], titles: Mapping[int, str]) -> str:
    """The chart as the `data:` URI of an SVG image; a bar a step, median and p95.

    Args:
        steps: The figures.
        titles: The steps' titles, by number.
    """
    decades = _decades(steps)
    height = _TOP + _ROW * len(steps) + 10
    root = ElementTree.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {_WIDTH} {height}",
            "width": str(_WIDTH),
            "height": str(height),
            "font-family": "DejaVu Sans, Helvetica, Arial, sans-serif",
            "font-size": "12",
        },
    )
    _box(root, 0, 0, _WIDTH, height, _PAPER)
    for decade in range(decades + 1):
        x = _LABELS + _BARS * decade / decades
        _box(root, x, _TOP - 8, 1, height - _TOP, _GRID)
        _say(root, x, _TOP - 14, _seconds(_LEAST * 10**decade), "middle")
    for row, step in enumerate(steps):
        y = _TOP + _ROW * row
        _say(root, _LABELS - 10, y + 12, f"{step.step:02d} {titles.get(step.step, '')}", "end")
        _box(root, _LABELS, y + 3, _length(step.p95_s, decades), _ROW - 8, _P95)
        _box(root, _LABELS, y + 3, _length(step.median_s, decades), _ROW - 8, _MEDIAN)
        told = f"{_seconds(step.median_s)} · {_seconds(step.p95_s)}"
        _say(root, _WIDTH - _VALUES + 20, y + 12, told, "start")
    image = base64.b64encode(ElementTree.tostring(root)).decode()
    return f"data:image/svg+xml;base64,{image}"


def _decades(steps: Sequence[StepFigures]) -> int:
    longest = max((step.p95_s for step in steps), default=1.0)
    return max(1, math.ceil(math.log10(max(longest, _LEAST * 10) / _LEAST)))


def _length(seconds: float, decades: int) -> float:
    """How long a bar is; one that is under the scale is still seen."""
    return max(2.0, _BARS * math.log10(max(seconds, _LEAST) / _LEAST) / decades)


def _seconds(value: float) -> str:
    return (
        f"{value * 1000:.0f} ms"
        if value < 1
        else f"{value:.1f} s"
        if value < 10
        else f"{value:.0f} s"
    )


def _box(
    root: ElementTree.Element, x: float, y: float, width: float, height: float, fill: str
) -> None:
    places = {"x": x, "y": y, "width": width, "height": height}
    ElementTree.SubElement(
        root, "rect", {**{name: f"{value:.1f}" for name, value in places.items()}, "fill": fill}
    )


def _say(root: ElementTree.Element, x: float, y: float, words: str, anchor: str) -> None:
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "fill": _INK, "text-anchor": anchor}
    ElementTree.SubElement(root, "text", place).text = words

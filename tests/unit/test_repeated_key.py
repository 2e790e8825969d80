"""What differs between two sets of parameters is told by name, and never by value."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.repeated_key import conflict, differing


@pytest.mark.parametrize(
    ("first", "again", "fields"),
    [
        ({}, {}, []),
        ({"request": {"a": 1, "b": [1]}}, {"request": {"b": [1], "a": 1}}, []),
        ({"request": {"a": 1}}, {"request": {"a": 2}}, ["request.a"]),
        ({"request": {"a": 1}}, {"request": {}}, ["request.a"]),
        ({"request": {}}, {"request": {"a": None}}, ["request.a"]),
        ({"request": {"n": ["x"]}}, {"request": {"n": ["x", "y"]}}, ["request.n"]),
        (
            {"request": {"a": {"b": 1}}},
            {"request": {"a": {"b": 2}, "c": 3}},
            ["request.a.b", "request.c"],
        ),
        ({"request": {"a": 1}}, {"request": "a"}, ["request"]),
        ({"request": {"a": 1}}, {"reqest": {"a": 1}}, ["reqest", "request"]),
    ],
)
def test_differing(first: Any, again: Any, fields: list[str]) -> None:  # noqa: ANN401
    assert differing(first, again) == fields


def test_a_conflict_in_words() -> None:
    told = conflict("k", "run", [f"f{number}" for number in range(100)])
    assert "'k'" in told
    assert told.endswith("f19 and others")

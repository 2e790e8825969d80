"""Facts that one step reads from the state store once, however many ask for them.

A step's arguments overlap: a port's binding needs the instance, its ports and networks,
and so do others. All of them are read before the step does anything, so one reading is
enough; and the next step reads anew.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")
Subject = TypeVar("Subject")

_READ = "_read"


class read_once(Generic[T]):  # noqa: N801 - used like `property`
    """A property that a subject from `reading` reads once; any other reads it each time."""

    def __init__(self, read: Callable[[Any], T]) -> None:
        self._read = read
        self.__doc__ = read.__doc__

    def __get__(self, subject: object, _owner: type) -> T:
        known = vars(subject).get(_READ)
        if known is None:
            return self._read(subject)
        name = self._read.__name__
        if name not in known:
            known[name] = self._read(subject)
        value: T = known[name]
        return value


def reading(subject: Subject) -> Subject:
    """The subject as one step reads it: each fact once."""
    twin = copy.copy(subject)
    vars(twin)[_READ] = {}
    return twin


def afresh(subject: Subject) -> Subject:
    """The subject as it is now, whatever was read before."""
    twin = copy.copy(subject)
    vars(twin).pop(_READ, None)
    return twin

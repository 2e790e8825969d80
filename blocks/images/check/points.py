"""The list of points, in the order in which they are told; each module adds its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from blocks.errors import FiftyError
from blocks.images.check.guest import Guest
from blocks.images.check.report import Finding, Notes

Look = Callable[[Guest, Notes], None]


@dataclass(frozen=True)
class Point:
    """A point of the check.

    Attributes:
        name: Its short name.
        title: What is to be true of the image.
        look: Looks, and notes what it sees.
    """

    name: str
    title: str
    look: Look

    def finding(self, guest: Guest) -> Finding:
        """Look at a guest; what cannot be read is told as unknown."""
        notes = Notes()
        try:
            self.look(guest, notes)
        except FiftyError as error:
            notes.unknown(error.message, error.hint)
        return notes.finding(self.name, self.title)

    def passed_over(self) -> Finding:
        """What is said of it where others took too long."""
        notes = Notes()
        notes.unknown("not looked at: other points took too long", "look into the image yourself")
        return notes.finding(self.name, self.title)


class Points:
    """Points that belong together."""

    def __init__(self) -> None:
        self.all: list[Point] = []

    def point(self, name: str, title: str) -> Callable[[Look], Look]:
        """Add a point: the decorator of the function that looks."""

        def add(look: Look) -> Look:
            self.all.append(Point(name, title, look))
            return look

        return add

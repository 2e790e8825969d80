"""YAML that is not ours: read in bounded time, space and depth.

A few hundred bytes of aliases can stand for billions of nodes, and a few kilobytes of
brackets for more depth than Python has. So the parser's events are counted first, with what
aliases stand for, and only then is anything built of them. PyYAML's own parser in Python is
used, not libyaml's, which goes down the C stack.
"""

from __future__ import annotations

from typing import Any

import yaml

MOST_NODES = 20_000
DEEPEST = 64


class NotReadable(ValueError):
    """It is no YAML, or not within the limits; the message quotes none of it."""


def load(text: str) -> Any:  # noqa: ANN401 - any YAML
    """What a YAML document says, as plain Python objects.

    Raises:
        NotReadable: It is no YAML, or has more than `MOST_NODES` nodes with aliases followed,
            or is deeper than `DEEPEST`, or refers to itself.
    """
    try:
        _count(text)
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise NotReadable(f"is not YAML{_place(error)}") from None
    except NotReadable:
        raise
    except ValueError:
        # A date such as 2001-99-99, or a number of thousands of digits.
        raise NotReadable("is not YAML: a date or number in it is none") from None


def lines(text: str) -> dict[tuple[str | int, ...], int]:
    """The line (from 1) of every node of a document that `load` has read, by its path."""
    found: dict[tuple[str | int, ...], int] = {}
    waiting: list[tuple[tuple[str | int, ...], yaml.Node | None]]
    waiting = [((), yaml.compose(text, Loader=yaml.SafeLoader))]
    while waiting:
        path, node = waiting.pop()
        if node is None:
            continue
        found[path] = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode):
            waiting += [((*path, str(key.value)), value) for key, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            waiting += [((*path, index), value) for index, value in enumerate(node.value)]
    return found


def _count(text: str) -> None:
    """Count what a document's nodes would be; raise where they are too many or too deep."""
    sizes: dict[str, int] = {}
    total = 0
    inside: list[tuple[str | None, int]] = []
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            if len(inside) >= DEEPEST:
                raise NotReadable(f"is nested deeper than {DEEPEST} levels{_at(event.start_mark)}")
            inside.append((event.anchor, total))
            total += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = inside.pop()
            if anchor is not None:
                sizes[anchor] = total - before
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise NotReadable(
                    f"refers to something that is not there yet{_at(event.start_mark)}"
                )
            total += sizes[event.anchor]
        if total > MOST_NODES:
            raise NotReadable(f"has more than {MOST_NODES} nodes")


def _place(error: yaml.YAMLError) -> str:
    return _at(getattr(error, "problem_mark", None))


def _at(mark: Any) -> str:  # noqa: ANN401 - yaml.Mark, which has no types
    return f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""

"""The process that holds a cloud-config against a schema; see `schema`.

Its argument is the schema's file, its standard input the cloud-config as a JSON string, its
standard output a JSON list of lines. They tell the place by what the schema knows, and by line
number: never a value.

It confines itself before it reads either of them (see `blocks.confined`): from then on it opens
no file but programs and their libraries, and no socket.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jsonschema import Draft4Validator, ValidationError
from jsonschema.exceptions import best_match
from jsonschema.validators import extend
from referencing import Registry

from blocks.confined import confine
from blocks.user_data.bounded_yaml import lines, load

_MOST_LINES = 20
_MOST_WORDS = 12


def main() -> None:
    """Answer the one question."""
    with Path(sys.argv[1]).open(encoding="utf-8") as file:
        confine(None, [], [])
        schema = json.load(file)
    text = json.load(sys.stdin)
    said = load(text)
    # An empty registry: what a schema refers to outside of itself is not fetched, but an error.
    # As in cloud-init, what is `!!binary` is text too.
    texts = Draft4Validator.TYPE_CHECKER.redefine(
        "string", lambda _checker, value: isinstance(value, str | bytes)
    )
    kind = extend(Draft4Validator, type_checker=texts)
    errors = kind(schema, registry=Registry()).iter_errors(_as_json(said or {}))
    places = lines(text)
    found = [_told(error, places) for error in _first(errors)]
    json.dump(list(dict.fromkeys(found)), sys.stdout)


def _as_json(value: Any) -> Any:  # noqa: ANN401 - any YAML
    """A value whose mappings have texts as keys, as JSON has; YAML also takes numbers."""
    if isinstance(value, dict):
        return {str(key): _as_json(one) for key, one in value.items()}
    return [_as_json(one) for one in value] if isinstance(value, list) else value


def _first(errors: Iterable[ValidationError]) -> Iterable[ValidationError]:
    for number, error in enumerate(errors):
        if number == _MOST_LINES:
            return
        yield error


def _told(error: ValidationError, places: dict[tuple[str | int, ...], int]) -> str:
    """One violation in words; of several alternatives the one that was meant most likely."""
    meant = best_match([error]) or error
    path = tuple(meant.absolute_path)
    line = next((places[path[:n]] for n in range(len(path), -1, -1) if path[:n] in places), None)
    where = ".".join(str(part) for part in _known(meant)) or "it"
    return f"{where} {_rule(meant)}" + (f" (line {line})" if line is not None else "")


def _known(error: ValidationError) -> list[str | int]:
    """The path, with `*` for each key that the user chose and the schema does not name."""
    named = {part for part in error.absolute_schema_path if isinstance(part, str)}
    return [part if isinstance(part, int) or part in named else "*" for part in error.absolute_path]


def _rule(error: ValidationError) -> str:
    rule, wanted = str(error.validator), error.validator_value
    words = f"breaks the rule {rule}"
    if rule == "type":
        words = f"must be of the type {_words([wanted] if isinstance(wanted, str) else wanted)}"
    elif rule == "enum":
        words = f"must be one of {_words(wanted)}"
    elif rule == "required":
        there = error.instance if isinstance(error.instance, dict) else {}
        words = f"lacks {_words(one for one in wanted if one not in there)}"
    elif rule == "additionalProperties":
        known = error.schema.get("properties", ()) if isinstance(error.schema, dict) else ()
        words = f"has keys that are not known there; known are {_words(known)}"
    elif rule in ("anyOf", "oneOf"):
        words = "is none of the forms that are allowed there"
    elif isinstance(wanted, str | int | float):
        words += f": {wanted}"
    return words


def _words(several: Iterable[Any]) -> str:
    names = sorted(str(one) for one in several)
    more = ", ..." if len(names) > _MOST_WORDS else ""
    return ", ".join(names[:_MOST_WORDS]) + more


if __name__ == "__main__":
    main()

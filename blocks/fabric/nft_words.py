"""Rules of nftables as a person would type them, for the report of what was changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from blocks.fabric.nft import Json


def rule(statements: Iterable[Json]) -> str:
    """The rule's text in the language of nft(8)."""
    return " ".join(_statement(statement) for statement in statements)


def _statement(statement: Json) -> str:
    (kind, body), *_ = statement.items()
    match kind:
        case "match":
            op = "" if body["op"] in ("==", "in") else f"{body['op']} "
            return f"{_value(body['left'])} {op}{_value(body['right'])}"
        case "vmap":
            return f"{_value(body['key'])} vmap {_value(body['data'])}"
        case "mangle":
            return f"{_value(body['key'])} set {_value(body['value'])}"
        case "goto" | "jump":
            return f"{kind} {body['target']}"
        case "snat" | "dnat":
            return f"{kind} to {_value(body['addr'])}"
        case _:
            return kind


def _value(value: Any) -> str:  # noqa: ANN401 - JSON has all types
    if isinstance(value, list):
        return ",".join(_value(item) for item in value)
    if not isinstance(value, dict):
        return str(value)
    (kind, body), *_ = value.items()
    return _VALUES[kind](body)


_VALUES: dict[str, Callable[[Any], str]] = {
    "payload": lambda body: f"{body['protocol']} {body['field']}",
    "meta": lambda body: f"meta {body['key']}",
    "ct": lambda body: f"ct {body['key']}",
    "prefix": lambda body: f"{body['addr']}/{body['len']}",
    "range": lambda body: "-".join(_value(item) for item in body),
    "&": lambda body: f"{_value(body[0])} & {_value(body[1])}",
    "map": lambda body: f"{_value(body['key'])} map {_value(body['data'])}",
    "set": lambda body: "{ " + ", ".join(_value(item) for item in body) + " }",
}

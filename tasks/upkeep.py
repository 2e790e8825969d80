"""What the scheduled flows have in common: their parameter, and how sizes are told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel

from blocks.errors import InvalidRequest
from tasks.draft import describe_all
from tasks.session import as_form

Model = TypeVar("Model", bound=BaseModel)


def asked(model: type[Model], request: BaseModel | Mapping[str, Any] | None) -> Model:
    """A flow's parameter, valid; None stands for all of its defaults.

    Raises:
        InvalidRequest: With all that is wrong with it.
    """
    form = as_form(request if request is not None else {})
    errors = describe_all(model, form)
    if errors:
        raise InvalidRequest("the request is wrong", details=errors)
    return model.model_validate(form)


def in_words(size: int) -> str:
    """A number of bytes as a person reads it."""
    amount = float(size)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            return f"{amount:.0f} {unit}" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1024
    raise AssertionError("the last unit takes all")

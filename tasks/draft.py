"""A request that may be wrong: its valid fields, and all that is wrong with the others.

Steps 4 to 8 each look at the whole request, so that one answer holds every error; what
step 4 found wrong must not keep step 6 from looking at the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from blocks.errors import FiftyError, InvalidRequest, Unsupported
from blocks.resources import VmRequest
from blocks.resources.address_forms import NO_IPV6
from blocks.resources.base import PATTERNS

AnyModel = TypeVar("AnyModel", bound=BaseModel)

_LONGEST_VALUE = 60
#: What is likely to hold a secret, or to be taken for a field that does.
_NEVER_SHOWN = ("user_data", "user_data_secret", "inject")


class Draft:
    """A `VmRequest` as it came.

    Args:
        form: The request's fields, unvalidated.
    """

    def __init__(self, form: dict[str, Any]) -> None:
        self._form = form

    @cached_property
    def _validated(self) -> tuple[VmRequest | None, list[str], frozenset[str]]:
        try:
            return VmRequest.model_validate(self._form), [], frozenset()
        except ValidationError as error:
            wrong = frozenset(str(finding["loc"][0]) for finding in error.errors())
            return None, describe_findings(error), wrong

    @property
    def errors(self) -> list[str]:
        """What is wrong with the form of the fields, a line each."""
        return self._validated[1]

    def valid(self, field: str) -> Any:  # noqa: ANN401 - the field's own type
        """A field's value; None where the field is wrong, or missing and without default."""
        request, _errors, wrong = self._validated
        if request is not None:
            return getattr(request, field)
        if field in wrong:
            return None
        if field not in self._form:
            return VmRequest.model_fields[field].get_default()
        # Its own validators have passed; this only gives it its type.
        kind: Any = VmRequest.model_fields[field].annotation
        return TypeAdapter(kind).validate_python(self._form[field])


def describe_all(model: type[BaseModel], form: Mapping[str, Any]) -> list[str]:
    """All that is wrong with a form, a line each; empty where nothing is."""
    try:
        model.model_validate(form)
    except ValidationError as error:
        return describe_findings(error)
    return []


def describe_findings(error: ValidationError) -> list[str]:
    """All that pydantic has found, a line each; none about a list that only wrong items empty."""
    found = error.errors(include_url=False)
    with_items = {finding["loc"][:-1] for finding in found}
    return [
        describe(finding)
        for finding in found
        if finding["type"] != "too_short" or finding["loc"] not in with_items
    ]


def valid_part(model: type[AnyModel], form: Mapping[str, Any]) -> AnyModel | None:
    """A form without the fields that are wrong; None where what is left is no request."""
    try:
        return model.model_validate(form)
    except ValidationError as error:
        wrong = {str(finding["loc"][0]) for finding in error.errors()}
    rest = {field: value for field, value in form.items() if field not in wrong}
    try:
        return model.model_validate(rest)
    except ValidationError:
        return None


def refusal(what: str, lines: Sequence[str]) -> FiftyError:
    """What a caller is told whose request has these things wrong with it.

    Args:
        what: What was asked for, as in "WHAT is wrong".
        lines: All that is wrong, a line each; at least one.
    """
    message = lines[0] if len(lines) == 1 else f"{len(lines)} things are wrong with this {what}"
    details = lines if len(lines) > 1 else ()
    if all(NO_IPV6 in line for line in lines):
        hint = "use IPv4; guests that speak IPv6 are not heard in any network"
        return Unsupported(message, hint=hint, details=details)
    return InvalidRequest(message, details=details)


def describe(finding: Any) -> str:  # noqa: ANN401 - pydantic's ErrorDetails
    """One of pydantic's findings as a line: field, what is wrong, and what was given."""
    where = ".".join(str(part) for part in finding["loc"])
    message = str(finding["msg"]).removeprefix("Value error, ")
    words = PATTERNS.get(finding.get("ctx", {}).get("pattern", ""))
    if words:
        message = f"must be {words}"
    given = finding.get("input")
    if where.partition(".")[0] in _NEVER_SHOWN:
        return f"{where}: {message}"
    if not where:
        return message  # about several fields together
    if finding["type"] == "missing" or not isinstance(given, str | int | float):
        return f"{where}: {message}"
    shown = repr(given)
    if len(shown) > _LONGEST_VALUE:
        shown = shown[:_LONGEST_VALUE] + "…"
    return f"{where}: {message} (given: {shown})"

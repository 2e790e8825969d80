"""What the flows' parameters have in common: they are forms, which the Prefect UI draws.

The UI draws a form from the JSON schema. It would offer the choice between a field and
"None" for every field that may be left out, and knows the fields' order by `position` only.
What is valid is not changed by anything here.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from blocks.resources.base import Resource


def _draw(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Write a model's JSON schema as the UI draws it best."""
    first = getattr(model, "first_fields", ())
    properties: dict[str, dict[str, Any]] = schema.get("properties", {})
    order = sorted(properties, key=lambda name: first.index(name) if name in first else len(first))
    for position, name in enumerate(order):
        properties[name] = {**_one_kind(properties[name]), "position": position}


def _one_kind(field: dict[str, Any]) -> dict[str, Any]:
    """A field that may be left out, without the choice of None: left empty it is left out."""
    kinds = [kind for kind in field.get("anyOf", []) if kind != {"type": "null"}]
    if len(kinds) != 1:
        return field
    rest = {key: value for key, value in field.items() if key != "anyOf"}
    if rest.get("default", ...) is None:
        del rest["default"]
    return {**kinds[0], **rest}


class Form(Resource):
    """A flow's parameter.

    Attributes:
        first_fields: What comes first in the form, where that is not the fields' own order.
    """

    model_config = ConfigDict(json_schema_extra=_draw)
    first_fields: ClassVar[tuple[str, ...]] = ()


def _octal(value: object) -> object:
    """Permission bits as `chmod` takes them; what is no text is left to pydantic."""
    if not isinstance(value, str):
        return value
    if not value or set(value) - set("01234567"):
        raise ValueError("must be octal, such as 0644")
    return int(value, 8)


#: Permission bits: a number, or octal digits in a text.
FileMode = Annotated[
    int,
    Field(ge=0, le=0o7777),
    BeforeValidator(_octal),
    WithJsonSchema({"type": "string", "pattern": "^[0-7]{1,5}$"}),
]

#: The name of a Prefect block with the caller's token.
CredentialsName = Annotated[
    str,
    Field(
        title="Credentials",
        pattern=r"^[a-z0-9-]{1,63}$",
        description="The name of the Prefect block that holds your token; it says which tenant "
        "you are.",
    ),
]

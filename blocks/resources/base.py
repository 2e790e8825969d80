"""What the models have in common: strictness, and the forms of names."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints


class Resource(BaseModel):
    """A model that never changes and knows all of its fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


_HOST_NAME = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
NAME_PATTERN = r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"
IMAGE_PATTERN = (
    r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
    r"(:[a-z0-9]([a-z0-9._-]{0,30}[a-z0-9])?)?$"
)
PROPERTY_PATTERN = r"^[a-z][a-z0-9_]{0,62}$"
_SHA256 = r"^[0-9a-f]{64}$"
#: The patterns of names in words, for whoever gave one that does not match.
PATTERNS = {
    _HOST_NAME: "lower-case letters, digits and hyphens, 63 at most, no hyphen at an end",
    NAME_PATTERN: "letters, digits, dot, underscore and hyphen, 63 at most, letter or digit at "
    "the ends",
    IMAGE_PATTERN: "a name, or NAME:VERSION",
    PROPERTY_PATTERN: "lower-case letters, digits and underscores, 63 at most, a letter first",
    _SHA256: "64 hexadecimal digits in lower case",
}

#: A host name label (RFC 1123): what a VM may be called, as the guest is called so too.
HostName = Annotated[
    str,
    StringConstraints(pattern=_HOST_NAME, max_length=63),
    Field(description=PATTERNS[_HOST_NAME]),
]

#: The name of a network, image, flavor, router, group or key pair.
ResourceName = Annotated[
    str,
    StringConstraints(pattern=NAME_PATTERN, max_length=63),
    Field(description=PATTERNS[NAME_PATTERN]),
]

#: An image, by its name (the newest active version) or `NAME:VERSION`.
ImageReference = Annotated[
    str,
    StringConstraints(pattern=IMAGE_PATTERN, max_length=96),
    Field(description="NAME[:VERSION]"),
]

#: `fa:16:3e:...`, lower case.
MacAddress = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{2}:){5}[0-9a-f]{2}$")]

Sha256 = Annotated[str, StringConstraints(pattern=_SHA256)]

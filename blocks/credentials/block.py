"""The Prefect block that holds a tenant's token."""

from __future__ import annotations

from prefect.blocks.core import Block
from pydantic import Field, SecretStr


class FiftyCredentials(Block):
    """A token for Fifty Steps.

    Requests name this block; the token itself is never a flow parameter, as Prefect
    stores those in the clear.
    """

    _block_type_name = "Fifty Credentials"
    _block_type_slug = "fifty-credentials"
    _description = "A tenant's token for Fifty Steps."

    token: SecretStr = Field(description="What `fifty init` or `fifty tenant token` printed.")

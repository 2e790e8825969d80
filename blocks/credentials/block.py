"""The Prefect block that holds a tenant's token."""

from __future__ import annotations

from prefect.blocks.core import Block
from pydantic import Field, SecretStr

from blocks.block_pages import documentation_url, logo_url


class FiftyCredentials(Block):
    """A token for Fifty Steps.

    Requests name this block; the token itself is never a flow parameter, as Prefect
    stores those in the clear.

    Example:
        Who a block's token stands for:
        ```python
        from blocks.credentials.block import FiftyCredentials

        credentials = FiftyCredentials.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Fifty Credentials"
    _block_type_slug = "fifty-credentials"
    _description = "A tenant's token for Fifty Steps."
    _logo_url = logo_url()
    _documentation_url = documentation_url()

    token: SecretStr = Field(description="What `fifty init` or `fifty tenant token` printed.")

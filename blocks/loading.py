"""Loading Prefect blocks by name."""

from __future__ import annotations

from typing import Any, TypeVar

from prefect.blocks.core import Block
from prefect.blocks.system import Secret

from blocks.errors import NotFound

AnyBlock = TypeVar("AnyBlock", bound=Block)


def load_block(kind: type[AnyBlock], name: str) -> AnyBlock:
    """The saved block of a kind and name, as it is now.

    Raises:
        NotFound: There is none.
    """
    try:
        block = kind.load(name)
    except ValueError as error:
        title = kind.get_block_type_slug()
        raise NotFound(
            f"there is no Prefect block {title}/{name}", hint="`fifty init` makes it"
        ) from error
    assert isinstance(block, kind)  # noqa: S101 - for the type checker: load is sync here
    return block


def load_secret(name: str) -> Any:  # noqa: ANN401 - a Secret block can hold any JSON
    """What one of Prefect's Secret blocks holds, as it is now.

    Raises:
        NotFound: There is none of that name.
    """
    try:
        secret = Secret.load(name)
    except ValueError as error:
        raise NotFound(
            f"there is no Prefect Secret block {name!r}", hint="make it in the Prefect UI, Blocks"
        ) from error
    assert isinstance(secret, Secret)  # noqa: S101 - for the type checker: load is sync here
    return secret.value.get_secret_value()

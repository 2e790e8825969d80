"""The passphrases of encrypted images: in Prefect's Secret blocks, read when they are needed."""

from __future__ import annotations

from blocks.errors import InvalidRequest
from blocks.loading import load_secret

_LONGEST = 512


def read_passphrase(name: str) -> str:
    """The passphrase that a Secret block holds, as it is now; it is kept nowhere else.

    Raises:
        NotFound: There is no such block.
        InvalidRequest: It holds something else.
    """
    value = load_secret(name)
    if not isinstance(value, str) or not value or len(value.encode()) > _LONGEST:
        raise InvalidRequest(
            f"the Secret block {name!r} holds no passphrase",
            hint=f"a text of {_LONGEST} bytes at most",
        )
    return value

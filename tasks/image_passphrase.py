"""The passphrases of encrypted images: in Prefect's Secret blocks, read when they are needed."""

from __future__ import annotations

from blocks.errors import InvalidRequest
from blocks.loading import load_secret
from blocks.resources import Image

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


def passphrase_of(image: Image) -> str | None:
    """The passphrase of an image; None where it is not encrypted.

    Raises:
        NotFound: The Secret block is gone.
        InvalidRequest: It holds no passphrase, or none is named.
    """
    if not image.encrypted:
        return None
    if image.passphrase_secret is None:
        raise InvalidRequest(
            f"the image {image.reference!r} is encrypted, and no passphrase is known",
            hint="import it with --passphrase-secret",
        )
    return read_passphrase(image.passphrase_secret)

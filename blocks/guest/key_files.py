"""Key pairs for logging in: made here, or read from the files of OpenSSH."""

from __future__ import annotations

import os
import re
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
)

from blocks.errors import InvalidRequest
from blocks.resources.request import KEY_TYPES

#: More than the largest RSA key that anybody uses.
KEY_LIMIT = 64 * 1024
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


def make_key_pair(directory: Path, name: str) -> tuple[str, Path]:
    """Make an ed25519 key pair in OpenSSH's format, or find the one that is there.

    Args:
        directory: Where; the private half gets mode 0600.
        name: The files' name, and the comment in the public half.

    Returns:
        The public key, and the private half's path.

    Raises:
        InvalidRequest: The name is none for a key pair, or the file that is there is no key.
    """
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name!r} is no name for a key pair",
            hint="letters, digits, dot, underscore and hyphen, 63 at most",
        )
    private = directory / name
    if not private.exists():
        _write(
            private,
            Ed25519PrivateKey.generate().private_bytes(
                Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()
            ),
        )
    public = f"{_derive(private, private.read_bytes())} fifty-{name}"
    private.with_name(f"{name}.pub").write_text(public + "\n")
    return public, private


def _write(file: Path, content: bytes) -> None:
    """A private file, never to be seen by others, not even half-written."""
    half = file.with_name(f".{file.name}.{os.getpid()}")
    handle = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as opened:
        opened.write(content)
    half.replace(file)


def public_key_of(file: Path, content: bytes) -> str:
    """The public key of a key file, be it the public or the private half.

    Args:
        file: Where it was read; beside a private half its `.pub` is looked for.
        content: Its content.

    Raises:
        InvalidRequest: It is no key, or a private one whose public half cannot be had.
    """
    if b"PRIVATE KEY-----" not in content[:100]:
        return _one_line(file, content)
    beside = file.with_name(f"{file.name}.pub")
    if beside.is_file():
        with beside.open("rb") as opened:
            return _one_line(beside, opened.read(KEY_LIMIT))
    return _derive(file, content)


def _one_line(file: Path, content: bytes) -> str:
    text = content.decode(errors="replace").strip()
    if "\n" in text or not text.startswith(tuple(f"{kind} " for kind in KEY_TYPES)):
        raise InvalidRequest(f"{file} is not one OpenSSH key (known: {', '.join(KEY_TYPES)})")
    return text


def _derive(file: Path, content: bytes) -> str:
    load = load_ssh_private_key if b"OPENSSH" in content[:100] else load_pem_private_key
    try:
        key = load(content, None)
        public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    except TypeError as error:
        raise InvalidRequest(
            f"{file} has a passphrase: give its public half, {file}.pub"
        ) from error
    except (ValueError, UnsupportedAlgorithm, AttributeError) as error:
        raise InvalidRequest(f"{file} is not a private key that can be read: {error}") from error
    return public.decode()

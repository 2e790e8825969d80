"""Encrypted images: qcow2 with LUKS inside, as QEMU's own block layer does it.

A passphrase reaches QEMU through a file in memory that only this process and QEMU have: it
is on no disk, on no command line, and in no environment.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from blocks.commands import Confinement, Limits, run
from blocks.errors import HostFault, Transient, UnsafeImage
from blocks.images.progress import Percents
from blocks.images.qemu_img import run_copy

#: LUKS's key derivation takes memory and seconds of its own.
_LIMITS = Limits(memory_bytes=2 * 1024**3, cpu_s=3600)
_TIMEOUT_S = 3600.0
#: What a new image is. QEMU has its key's derivation take two seconds, here and at each opening.
LUKS = "encrypt.format=luks,encrypt.key-secret=key"
#: QEMU measures how fast this host is, and gives up at once where the kernel, which counts
#: by its ticks, says that this took no time (QEMU 7.2, crypto/pbkdf.c). The next try may do.
_NO_MEASURE = "Unable to get accurate CPU usage"
_TRIES = 20


@contextmanager
def _key(passphrase: str) -> Iterator[tuple[int, list[str]]]:
    """The passphrase for one QEMU program: the file to hand on, and the words that name it."""
    handle = os.memfd_create("passphrase", os.MFD_CLOEXEC)
    try:
        os.write(handle, passphrase.encode())
        yield handle, ["--object", f"secret,id=key,file=/proc/self/fd/{handle}"]
    finally:
        os.close(handle)


def _options(path: Path) -> str:
    """An encrypted qcow2, as `--image-opts` takes it."""
    name = str(path).replace(",", ",,")
    return f"driver=qcow2,encrypt.key-secret=key,file.driver=file,file.filename={name}"


def encrypt(
    source: Path,
    source_format: str,
    target: Path,
    passphrase: str,
    limit_bytes: int,
    tell: Percents | None = None,
) -> list[str]:
    """Copy a disk that anybody may have made into an encrypted qcow2.

    Args:
        source: What is copied; it was inspected.
        source_format: Its format.
        target: The file to make.
        passphrase: The key.
        limit_bytes: The most that the target's file may have.
        tell: Told now and then how far it is.

    Returns:
        The command.

    Raises:
        HostFault: The source cannot be read, or the target would be too large.
        Transient: QEMU could not measure how fast this host derives a key.
    """
    target.touch()
    limits = replace(_LIMITS, file_bytes=limit_bytes)
    confined = Confinement(limits, reads=(source,), writes=(target,))
    with _key(passphrase) as (handle, key):
        words = ["qemu-img", "convert", *key, "-f", source_format, "-O", "qcow2"]
        words += ["-o", LUKS, str(source), str(target)]
        _measured(words, confined, handle, tell)
    return words


def create_overlay(base: Path, path: Path, passphrase: str, size_bytes: int) -> list[str]:
    """Create an encrypted qcow2 that holds only the differences from its base.

    Args:
        base: An encrypted qcow2; it is not opened.
        path: The file to make.
        passphrase: The key.
        size_bytes: Its virtual size.

    Returns:
        The command.

    Raises:
        Transient: QEMU could not measure how fast this host derives a key.
    """
    with _key(passphrase) as (handle, key):
        words = ["qemu-img", "create", "-q", "-u", *key, "-f", "qcow2", "-b", str(base)]
        words += ["-F", "qcow2", "-o", LUKS]
        words += [str(path), str(size_bytes)]
        _measured(words, _LIMITS, handle)
    return words


def copy(
    base: Path, path: Path, passphrase: str, size_bytes: int, limit_bytes: int, tell: Percents
) -> list[str]:
    """Create an encrypted qcow2 with all that an encrypted base holds, under a key of its own.

    Args:
        base: An encrypted qcow2.
        path: The file to make.
        passphrase: What opens both.
        size_bytes: Its virtual size; not less than the base's.
        limit_bytes: The most that the file may have.
        tell: Told now and then how far it is.

    Returns:
        The command.

    Raises:
        HostFault: The base cannot be read, or there is no room.
        Transient: QEMU could not measure how fast this host derives a key.
    """
    with _key(passphrase) as (handle, key):
        words = ["qemu-img", "create", "-q", *key, "-f", "qcow2"]
        words += ["-o", LUKS, str(path), str(size_bytes)]
        _measured(words, _LIMITS, handle)
        words = ["qemu-img", "convert", "-n", "--target-is-zero", *key]
        words += ["--image-opts", "--target-image-opts", _options(base), _options(path)]
        limits = replace(_LIMITS, file_bytes=limit_bytes)
        confined = Confinement(limits, reads=(base,), writes=(path,))
        run_copy(words, confined, tell, pass_fds=(handle,))
    return words


def _measured(
    words: list[str], limits: Limits | Confinement, handle: int, tell: Percents | None = None
) -> None:
    """Run a program that measures what a key's derivation may cost.

    Raises:
        Transient: It could not, however often it tried.
    """
    for _ in range(_TRIES):
        try:
            run_copy(words, limits, tell, pass_fds=(handle,))
        except HostFault as error:
            if _NO_MEASURE not in error.message:
                raise
        else:
            return
    raise Transient("QEMU could not measure what a key's derivation may cost")


def check(path: Path, passphrase: str) -> None:
    """Open an encrypted qcow2 with its passphrase, and check its consistency.

    Raises:
        UnsafeImage: The passphrase is another one, or the image is damaged.
    """
    confined = Confinement(_LIMITS, reads=(path,))
    with _key(passphrase) as (handle, key):
        words = ["qemu-img", "check", "-q", *key, "--image-opts", _options(path)]
        try:
            run(*words, limits=confined, timeout_s=_TIMEOUT_S, pass_fds=(handle,))
        except HostFault as error:
            if "Invalid password" in error.message:
                raise UnsafeImage("the passphrase does not open the image") from error
            raise UnsafeImage(f"the encrypted image is damaged: {error.message}") from error

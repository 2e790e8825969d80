"""What an import makes of an inspected image: the same, a copy, or another format."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from blocks.commands import open_name
from blocks.errors import HostFault, UnsafeImage
from blocks.images import encryption, qemu_img
from blocks.images.intake import originals
from blocks.images.intake.download import Progress
from blocks.images.intake.outcome import Inspected
from blocks.resources.image import ImageFormat, SourceFormat

#: What a qcow2 needs beside a guest's data, more than enough: a part of the virtual size for
#: its L2 tables and refcounts, and something for the rest.
_TABLES_PART, _TABLES_REST = 4096, 16 * 1024**2


@dataclass(frozen=True)
class Wanted:
    """What an image is to become.

    Attributes:
        format: The format in the catalogue.
        compressed: For qcow2: with compressed clusters; not where it is encrypted.
        passphrase: Opens an encrypted image, and encrypts another one.
        limit_bytes: The most that it may have, as raw.
    """

    format: ImageFormat
    compressed: bool
    passphrase: str | None
    limit_bytes: int


def make(
    source: BinaryIO, inspected: Inspected, made: Path, wanted: Wanted, progress: Progress
) -> list[str]:
    """Make of an inspected image what is wanted.

    Args:
        source: The image, open.
        inspected: What it is.
        made: The file to make.
        wanted: What it is to be.
        progress: Told now and then.

    Returns:
        The command.

    Raises:
        UnsafeImage: It cannot be read, or becomes too large.
    """
    name, passphrase = open_name(source), wanted.passphrase
    if inspected.encrypted and passphrase is not None:
        encryption.check(name, passphrase)
    as_it_is = wanted.format is ImageFormat.RAW and inspected.format is SourceFormat.RAW
    if inspected.encrypted or as_it_is:
        if inspected.path.parent == made.parent:
            # Both names until it is in the store: a killed import goes on with the first.
            os.link(inspected.path, made)
        else:
            originals.copy(source, made, wanted.limit_bytes, progress)
        return ["cp", str(inspected.path), str(made)]
    size = inspected.virtual_size_bytes
    outcome = qemu_img.Outcome(
        format=wanted.format,
        compressed=wanted.compressed and wanted.format is ImageFormat.QCOW2,
        limit_bytes=wanted.limit_bytes + size // _TABLES_PART + _TABLES_REST,
    )

    def tell(percent: float) -> None:
        progress(int(size * percent / 100), size)

    try:
        if passphrase is not None:
            words = encryption.encrypt(
                name, inspected.format, made, passphrase, outcome.limit_bytes, tell
            )
            encryption.check(made, passphrase)
        else:
            words = qemu_img.convert_untrusted(name, inspected.format, made, outcome, tell)
    except HostFault as error:
        raise UnsafeImage(f"the image cannot be converted: {error.message}") from error
    return [str(inspected.path) if word == str(name) else word for word in words]

"""Saving an image of the catalogue as a file of its own: as it is, or converted.

The file is there whole or not at all, and is never put over another one. What a killed save
leaves (`.NAME.fifty-part`) is taken over by the next one of the same name.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from blocks import changes
from blocks.errors import (
    Conflict,
    HostFault,
    InvalidRequest,
    UnsafeImage,
    Unsupported,
    fault_of_host,
)
from blocks.images import qemu_img
from blocks.images.cache import copy_sparsely
from blocks.images.disks import largest_file
from blocks.images.files import sync_directory
from blocks.images.inspection import inspect
from blocks.images.intake.unpacking import sha256_of
from blocks.images.progress import Percents
from blocks.resources.image import Image, ImageFormat


def save(
    image: Image, target: Path, form: ImageFormat, forbidden: Path, tell: Percents
) -> list[str]:
    """Save an image as a file; holes stay holes.

    What is in the format already is copied byte by byte. A qcow2 that is made is compressed
    (zstd), and every qcow2 is checked with `qemu-img check`. An encrypted image stays so.

    Args:
        image: The image.
        target: The file to make, an absolute path.
        form: Its format.
        forbidden: Our own home: nothing is saved below it.
        tell: Told now and then how far it is.

    Returns:
        The command, as a person would have typed it.

    Raises:
        InvalidRequest: The file cannot be made there.
        Conflict: There is a file already, or another save is making it.
        Unsupported: The image is encrypted, and would not be any more.
        UnsafeImage: The catalogue's file is not what was recorded.
        HostFault: There is no room for it.
    """
    if image.encrypted and form is not image.format:
        raise Unsupported(
            f"the image {image.reference} is encrypted, and is saved so: as {image.format}",
            hint="to decrypt it, use qemu-img with its passphrase on the saved file",
        )
    target = _checked(target, forbidden)
    with _fresh(target) as part:
        if form is image.format:
            words = _copy(image, part, tell)
        else:
            words = _convert(image, part, form, tell)
        if form is ImageFormat.QCOW2 and not image.encrypted:
            qemu_img.check_untrusted(part, form)
        inspect(part, form, encrypted=image.encrypted)
    changes.record(f"Saved the image {image.reference} as {form}", [*words, str(target)])
    return [*words, str(target)]


def _checked(target: Path, forbidden: Path) -> Path:
    """The target, its directory's links followed."""
    if not target.is_absolute() or target.name in ("", ".", ".."):
        raise InvalidRequest(f"{target} is no absolute path of a file")
    try:
        folder = target.parent.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise InvalidRequest(
            f"there is no directory {target.parent}", hint="make it first"
        ) from error
    if not folder.is_dir():
        raise InvalidRequest(f"{target.parent} is no directory")
    if folder.is_relative_to(forbidden.resolve()):
        raise InvalidRequest(f"{target} would be among the files of Fifty Steps itself")
    _refuse_present(folder / target.name)
    return folder / target.name


def _refuse_present(target: Path) -> None:
    if target.exists() or target.is_symlink():
        raise Conflict(f"{target} is there already", hint="choose another name, or remove it")


@contextmanager
def _fresh(target: Path) -> Iterator[Path]:
    """A file beside the target, which gets its name when the block is left well."""
    part = target.with_name(f".{target.name}.fifty-part")
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        handle = os.open(part, flags, 0o600)
    except OSError as error:
        raise InvalidRequest(f"{target} cannot be made: {error.strerror}") from error
    try:
        _take(handle, part, target)
        try:
            yield part
            os.fsync(handle)
            _name(part, target)
        except OSError as error:
            fault = fault_of_host(error, f"write {target}")
            if fault is None:
                raise
            raise fault from error
        finally:
            part.unlink(missing_ok=True)
        sync_directory(target.parent)
    finally:
        os.close(handle)


def _take(handle: int, part: Path, target: Path) -> None:
    """Have the part for this save alone, and empty."""
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        raise InvalidRequest(f"{target} cannot be made: what is in the way is no file")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise Conflict(f"another save is making {target}", hint="wait for it") from error
    # Had the other one just ended, this would be what it has saved.
    if not part.exists() or not os.path.samestat(os.fstat(handle), part.stat()):
        raise Conflict(f"another save has just made {target}")
    os.ftruncate(handle, 0)


def _name(part: Path, target: Path) -> None:
    """Give a file its name, never another one's."""
    try:
        os.link(part, target)
    except FileExistsError:
        _refuse_present(target)
        raise
    except PermissionError:
        # FAT, on a stick, has no links: the moment in between is nobody's there.
        _refuse_present(target)
        part.rename(target)


def _copy(image: Image, part: Path, tell: Percents) -> list[str]:
    told = -1

    def progress(done: int, total: int) -> None:
        nonlocal told
        percent = 100 * done // max(total, 1)
        if percent // 10 > told // 10:
            told = percent
            tell(percent)

    _compare(image, copy_sparsely(Path(image.path), part, progress))
    return ["cp", "--sparse=always", image.path]


def _convert(image: Image, part: Path, form: ImageFormat, tell: Percents) -> list[str]:
    source = Path(image.path)
    inspect(source, image.format)
    _compare(image, sha256_of(source))
    outcome = qemu_img.Outcome(
        format=form,
        compressed=form is ImageFormat.QCOW2,
        limit_bytes=largest_file(image.virtual_size_bytes),
    )
    try:
        words = qemu_img.convert_untrusted(source, image.format, part, outcome, tell)
    except HostFault as error:
        raise HostFault(
            f"the image {image.reference} cannot be converted: {error.message}", hint=error.hint
        ) from error
    return words[:-1]


def _compare(image: Image, digest: str) -> None:
    if digest != image.sha256:
        raise UnsafeImage(
            f"the file of the image {image.reference} has another checksum than was recorded",
            hint="build or import the image again",
        )

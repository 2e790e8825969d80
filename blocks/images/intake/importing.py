"""The import of one image: each part can be done again, and goes on where it stopped.

All of it lies in a directory of the image's own, `build/ID/`, until the whole and inspected
result is renamed into the store.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from blocks import changes
from blocks.commands import open_name
from blocks.confined import keeps_to_files
from blocks.errors import InvalidRequest, UnsafeImage
from blocks.images import qemu_img
from blocks.images.files import replacing
from blocks.images.formats.magic import WRAPPINGS, looks_like
from blocks.images.inspection import Inspection, inspect, inspect_open, open_regular
from blocks.images.intake import originals
from blocks.images.intake.checksums import SUMS, expected_of
from blocks.images.intake.converting import Wanted, make
from blocks.images.intake.download import Downloader, Progress
from blocks.images.intake.originals import SOURCE, UNPACKED, Original
from blocks.images.intake.outcome import ImportedImage, Inspected
from blocks.images.intake.unpacking import sha256_of, unpack
from blocks.images.stored import read_note, write_note
from blocks.resources.image import ImageFormat, SourceFormat


class Intake:
    """Takes images in.

    Args:
        store: Where finished images go.
        scratch: Where a directory for each import is made, and removed again.
        limit_bytes: The largest file, packed or unpacked.
        forbidden: No file below it is imported: it is ours.
        downloader: Fetches from URLs.
    """

    def __init__(
        self,
        store: Path,
        scratch: Path,
        limit_bytes: int,
        forbidden: Path,
        downloader: Downloader,
    ) -> None:
        self._store = store
        self._scratch = scratch
        self._limit = limit_bytes
        self._forbidden = forbidden
        self._downloader = downloader

    def fetch(
        self,
        source: str,
        image_id: str,
        expected: str | None,
        progress: Progress,
    ) -> str | None:
        """Have what a source names in the image's own directory, its checksum compared.

        Args:
            source: An http or https URL, or the absolute path of a file.
            image_id: The image's id, chosen before.
            expected: The SHA-256 that it has to have; `SHA256SUMS` to read it from the file
                of that name beside the source; None: it is not compared.
            progress: Told now and then.

        Returns:
            The checksum that was compared.

        Raises:
            NotFound: There is no such file, or it is not in `SHA256SUMS`.
            InvalidRequest: The source is wrong.
            Denied: It may not be fetched from there.
            UnsafeImage: It is another file than the checksum says, or too large.
            Transient: The server does not answer, or breaks off.
        """
        folder = self._folder(image_id)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        target = folder / SOURCE
        if expected == SUMS:
            expected = expected_of(source, self._downloader)
        if "://" not in source:
            self._have_file(Path(source), folder, expected, progress)
            return expected
        checked = expected is not None
        self._downloader.fetch(source, target, self._limit, progress, checked=checked)
        if expected is not None and sha256_of(target) != expected:
            target.unlink()
            raise _another_checksum(expected)
        size = target.stat().st_size
        changes.record(f"Fetched {size} bytes of the image", ["curl", "-o", str(target), source])
        return expected

    def inspect(
        self,
        image_id: str,
        declared: SourceFormat | None,
        progress: Callable[[int], None],
        *,
        encrypted: bool = False,
    ) -> Inspected:
        """Unpack what was fetched where it is packed, and look whether it is safe.

        Args:
            image_id: The image.
            declared: Its format; None: what its magic bytes say.
            progress: Told now and then how much is unpacked.
            encrypted: Whether it is said to be encrypted.

        Raises:
            UnsafeImage: It is not what it is said to be, or reaches outside of itself.
        """
        folder = self._folder(image_id)
        with originals.source(folder) as (file, path):
            actual = looks_like(file)
            if actual not in WRAPPINGS:
                form = declared or _format(actual)
                return _inspected(inspect_open(file, path, form, encrypted=encrypted), path)
            unpacked = folder / UNPACKED
            unpack(open_name(file), actual, unpacked, self._limit, progress)
            changes.record(f"Unpacked {path}", [actual, "-d", str(path)])
        with open_regular(unpacked) as file:
            form = declared or _format(looks_like(file))
            return _inspected(inspect_open(file, unpacked, form, encrypted=encrypted), unpacked)

    def convert(
        self,
        image_id: str,
        inspected: Inspected,
        target: ImageFormat,
        progress: Progress,
        *,
        compressed: bool,
        passphrase: str | None = None,
    ) -> ImportedImage:
        """Put an inspected image into the store, in the catalogue's format.

        What is made is inspected as what it is now; it is in the store whole, or not at all.

        Args:
            image_id: The image.
            inspected: What `inspect` found.
            target: The format in the catalogue.
            progress: Told now and then how much of it is read.
            compressed: For qcow2: with compressed clusters; not where it is encrypted.
            passphrase: Opens an encrypted image, and encrypts another one.

        Raises:
            UnsafeImage: It cannot be read, or what it became is too large, or not safe.
        """
        finished = self.finished(image_id)
        if finished is not None:
            shutil.rmtree(self._folder(image_id), ignore_errors=True)
            return finished
        self._store.mkdir(parents=True, exist_ok=True, mode=0o755)
        if target is ImageFormat.RAW and inspected.virtual_size_bytes > self._limit:
            size = inspected.virtual_size_bytes
            raise UnsafeImage(f"as raw it has {size} bytes, {self._limit} are allowed")
        path = self._store / f"{image_id}.{target}"
        made = self._folder(image_id) / f"made.{target}"
        made.unlink(missing_ok=True)
        wanted = Wanted(target, compressed, passphrase, self._limit)
        with originals.content(self._folder(image_id), inspected.path) as source:
            words = make(source, inspected, made, wanted, progress)
        with ThreadPoolExecutor(2) as pool:
            # None of the three needs much of what the others do.
            flushing = pool.submit(_flush, made)
            hashing = pool.submit(sha256_of, made)
            encrypted = inspected.encrypted or passphrase is not None
            seen = inspect(made, target, encrypted=encrypted)
            if target is ImageFormat.QCOW2 and not encrypted:
                qemu_img.check_untrusted(made, target)
            flushing.result()
            digest = hashing.result()
        # A killed try may have put it there, and a name is not renamed to another one of the
        # same file (rename(2)).
        path.unlink(missing_ok=True)
        with replacing(path, mode=0o644) as part:
            made.replace(part)
        imported = ImportedImage(
            path=path,
            format=target,
            sha256=digest,
            size_bytes=seen.size_bytes,
            virtual_size_bytes=seen.virtual_size_bytes,
            encrypted=seen.encrypted,
        )
        write_note(self._note(image_id), imported)
        shutil.rmtree(self._folder(image_id))
        changes.record("Put the image into the store", [*words[:-1], str(path)])
        return imported

    def finished(self, image_id: str) -> ImportedImage | None:
        """What an earlier import of this id made, if it came to its end."""
        return read_note(ImportedImage, self._note(image_id))

    def _folder(self, image_id: str) -> Path:
        return self._scratch / image_id

    def _note(self, image_id: str) -> Path:
        return self._store / f"{image_id}.json"

    def _have_file(
        self, source: Path, folder: Path, expected: str | None, progress: Progress
    ) -> None:
        """Have a file of this host: from where it lies, or a copy of it."""
        path = source.resolve()
        with open_regular(path) as file:
            # Of what was opened, whatever the path leads to by now.
            if open_name(file).readlink().is_relative_to(self._forbidden.resolve()):
                raise InvalidRequest(f"{source} is a file of Fifty Steps itself")
            size = os.fstat(file.fileno()).st_size
            if size > self._limit:
                raise UnsafeImage(f"the file has {size} bytes, {self._limit} are allowed")
            taken = open_name(file)
            if keeps_to_files():
                originals.note(folder, Original.of(file, path))
            else:
                taken = folder / SOURCE
                originals.copy(file, taken, self._limit, progress)
                changes.record(f"Copied {size} bytes of the image", ["cp", str(path), str(taken)])
            if expected is not None and sha256_of(taken) != expected:
                raise _another_checksum(expected)


def _inspected(seen: Inspection, path: Path) -> Inspected:
    return Inspected(
        path=path,
        format=seen.format,
        virtual_size_bytes=seen.virtual_size_bytes,
        encrypted=seen.encrypted,
    )


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _another_checksum(expected: str) -> UnsafeImage:
    return UnsafeImage(
        f"the file has another checksum than {expected}",
        hint="it is damaged, or not the one that was meant",
    )


def _format(actual: str | None) -> SourceFormat:
    """The format by the magic bytes.

    Raises:
        UnsafeImage: It is none that can be taken in.
    """
    try:
        return SourceFormat(actual or SourceFormat.RAW)
    except ValueError as error:
        raise UnsafeImage(
            f"the file is {actual}, which is not imported",
            hint=f"there are: {', '.join(SourceFormat)}, also packed by {', '.join(WRAPPINGS)}",
        ) from error

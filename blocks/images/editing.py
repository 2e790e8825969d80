"""Changing an image's files: the result is a new image, the old one is only read.

The work happens in an overlay in the new image's own directory (`build/ID/`): it begins empty,
however large the image is, and is flattened into the store when all is changed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from blocks import changes
from blocks.errors import Conflict, InvalidRequest, Unsupported
from blocks.images import qemu_img
from blocks.images.access.base import Access, Change, Method, Put, Remove
from blocks.images.access.journals import replay_journals
from blocks.images.access.opening import open_access
from blocks.images.exports import Exports
from blocks.images.generalising import generalising
from blocks.images.progress import Percents
from blocks.images.stored import StoredImage, read_note, store, write_note
from blocks.resources.image import Image, ImageFormat

_OVERLAY = "edited.qcow2"


class Editor:
    """Changes images.

    Args:
        store: Where finished images go.
        scratch: Where a directory for each edit is made, and removed again.
        exports: How a disk is seen as a raw file.
    """

    def __init__(self, store: Path, scratch: Path, exports: Exports) -> None:
        self._store = store
        self._scratch = scratch
        self._exports = exports

    def begin(self, source: Image, image_id: str) -> Path:
        """Have an overlay on an image in the new one's own directory; an old one goes.

        Args:
            source: The image to change.
            image_id: The new one's id, chosen before.

        Raises:
            Conflict: The image's file is not what the catalogue says.
            Unsupported: It is encrypted.
        """
        if source.encrypted:
            raise Unsupported("the image is encrypted: nothing here can look into it")
        base = Path(source.path)
        if not base.is_file() or base.stat().st_size != source.size_bytes:
            raise Conflict(f"the file of the image {source.name!r} is not as it was recorded")
        return self.begin_on(base, source.format, image_id, f"the image {source.name}")

    def begin_on(self, base: Path, form: ImageFormat, image_id: str, what: str) -> Path:
        """Have an overlay on a file in the new image's own directory; an old one goes.

        Args:
            base: The file, which nobody writes meanwhile.
            form: Its format.
            image_id: The new image's id, chosen before.
            what: The file, in words.
        """
        overlay = self._overlay(image_id)
        self._exports.release(overlay)
        shutil.rmtree(overlay.parent, ignore_errors=True)
        overlay.parent.mkdir(parents=True, mode=0o700)
        words = qemu_img.create_overlay(base, form, overlay)
        changes.record(f"Created an overlay on {what}", words)
        return overlay

    def settle(self, image_id: str) -> int:
        """Bring the file systems of an image that was begun to rest; see `replay_journals`."""
        return replay_journals(self._overlay(image_id), ImageFormat.QCOW2, self._exports)

    def change(
        self,
        image_id: str,
        wanted: Sequence[Change],
        *,
        generalise: bool,
        trusted: bool,
        method: Method | None,
        look: Callable[[Access], None],
    ) -> Method:
        """Change the files of an image that was begun; what is so already is left alone.

        Args:
            image_id: The new image.
            wanted: The changes.
            generalise: Also take out what makes it one certain machine.
            trusted: Whether the host's kernel may read it; see `open_access`.
            method: The way in; none: the one that `open_access` chooses.
            look: Given the files when all is changed, to look at them.

        Returns:
            The way in that was taken.

        Raises:
            InvalidRequest: There is nothing to remove at a path, or a file cannot be written.
            HostFault: The file system is not consistent afterwards.
        """
        overlay = self._overlay(image_id)
        opening = open_access(
            overlay, ImageFormat.QCOW2, self._exports,
            trusted=trusted, writable=True, method=method,
        )  # fmt: skip
        with opening as guest:
            for one in wanted:
                if isinstance(one, Remove) and guest.find(one.path, follow=False) is None:
                    raise InvalidRequest(f"there is no {one.path} in the image to remove")
            all_ = [(_words(one), one) for one in wanted]
            if generalise:
                # First: what is given by the caller is there at the end.
                all_ = [(f"Generalised ({why})", one) for why, one in generalising(guest)] + all_
            missing = [(why, one) for why, one in all_ if not guest.is_done(one)]
            guest.apply([one for _why, one in all_])
            look(guest)
            way = guest.method
        for why, one in missing:
            command = ["rm", "-r", one.path] if isinstance(one, Remove) else ["cp", "-", one.path]
            changes.record(
                f"{why}: {one.path}", ["guestfish", "--rw", "-a", str(overlay), *command]
            )
        return way

    def finish(self, image_id: str, tell: Percents) -> StoredImage:
        """Put the changed image into the store, flattened, and inspected as what it is now.

        Args:
            image_id: The image.
            tell: Told now and then how far it is.
        """
        note = self._store / f"{image_id}.json"
        overlay = self._overlay(image_id)
        edited = read_note(StoredImage, note)
        if edited is None:
            path = self._store / f"{image_id}.{ImageFormat.QCOW2}"
            what = "Put the changed image into the store"
            edited = store(overlay, ImageFormat.QCOW2, path, what, tell)
            write_note(note, edited)
        if overlay.parent.exists():
            shutil.rmtree(overlay.parent)
        return edited

    def release(self, image_id: str) -> None:
        """End what a killed edit left open."""
        self._exports.release(self._overlay(image_id))

    def _overlay(self, image_id: str) -> Path:
        return self._scratch / image_id / _OVERLAY


def _words(change: Change) -> str:
    if isinstance(change, Put):
        return f"Wrote {len(change.content)} bytes into the image"
    return "Removed from the image"

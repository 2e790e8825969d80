"""The static check of one image of the catalogue: its file opened, by what it holds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from blocks.errors import Conflict, UnsafeImage
from blocks.images.access.base import Access, Method
from blocks.images.access.opening import open_access
from blocks.images.check import CheckReport, look_at
from blocks.images.check.firmware import PROPERTY, Firmware, find_loaders
from blocks.images.cloud_init import CloudInit
from blocks.images.exports import Exports
from blocks.resources import Image
from blocks.windows.check import WANTED, look_at_windows
from blocks.windows.disk import open_windows


def check_image(
    image: Image,
    exports: Exports,
    keep_cloud_init: Callable[[str, Access], CloudInit | None],
    *,
    trusted: bool,
    method: Method | None = None,
) -> CheckReport:
    """Look into an image; see `ImageStore.check`.

    Args:
        image: The image.
        exports: How its disk is seen as a raw file.
        keep_cloud_init: Reads its cloud-init, and keeps what it is asked for later.
        trusted: Whether the host's kernel may read it.
        method: The way in.
    """
    path = Path(image.path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != image.sha256:
        raise Conflict(f"the file of the image {image.name!r} is not as it was recorded")
    when = datetime.now(UTC)
    if image.os == "windows":
        with open_windows(path, image.format, exports, WANTED) as windows:
            found = look_at_windows(windows)
        return CheckReport(sha256=digest, checked_at=when, method="ntfscat", findings=found)
    firmware = _firmware(image, path, exports)
    with open_access(path, image.format, exports, trusted=trusted, method=method) as guest:
        try:
            cloud_init = keep_cloud_init(image.id, guest)
        except UnsafeImage:
            # The check's own points tell what is wrong with its files.
            cloud_init = None
        return CheckReport(
            sha256=digest,
            checked_at=when,
            method=guest.method,
            findings=look_at(guest, firmware),
            root=guest.mounts["/"].kind,
            cloud_init=cloud_init,
        )


def _firmware(image: Image, path: Path, exports: Exports) -> Firmware:
    with exports.open(path, image.format, writable=False) as raw:
        loaders = find_loaders(raw, raw.parent)
    return Firmware(image.properties.get(PROPERTY, "bios"), image.reference, loaders)

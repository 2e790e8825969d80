"""The image store: one face for images, bases, disks, config drives and injection."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from blocks import changes
from blocks.images import disks, leftovers
from blocks.images.access.base import Method
from blocks.images.build import Builder, BuiltImage
from blocks.images.cache import BaseCache, FetchProgress, Idle, Needed
from blocks.images.cloud_init import CloudInit, GuestFiles
from blocks.images.config_drive import build_config_drive
from blocks.images.exports import Exports
from blocks.images.files import part_of
from blocks.images.injection import Injector
from blocks.images.progress import Percents
from blocks.images.recipe import Recipe
from blocks.images.recipe_book import RecipeBook
from blocks.inventory import Found
from blocks.resources.image import Image, ImageFormat
from blocks.resources.request import InjectedFile

if TYPE_CHECKING:
    # What only few flows need is imported when they do: all VMs' flows begin with this module.
    from blocks.images.check import CheckReport
    from blocks.images.editing import Editor
    from blocks.images.intake.importing import Intake
    from blocks.images.intake.reach import Network

LIMIT_BYTES = 100 * 1024**3


class ImageStore:
    """The images of this host, and the disks made of them.

    Args:
        directory: `FIFTY_HOME/images`: `store/` holds the catalogue's files, `cache/` this
            host's bases, `build/`, `packages/` and `exports/` what is made on the way.
        mirrors: Mirrors' URLs for builds, by distribution; none means this host's apt.
        recipes: The folder of the site's own recipes.
        limit_bytes: The largest file that an import takes, packed or unpacked.
        networks: Networks that are not public, and images are fetched from all the same.

    Attributes:
        recipes: What can be built.
    """

    def __init__(
        self,
        directory: Path,
        mirrors: Mapping[str, str | None] = MappingProxyType({}),
        recipes: Path | None = None,
        limit_bytes: int = LIMIT_BYTES,
        networks: Sequence[Network] = (),
    ) -> None:
        self._directory = directory.absolute()
        self._cache = BaseCache(self._directory / "cache")
        self._exports = Exports(self._directory / "exports")
        self._injector = Injector(self._exports)
        self._builder = Builder(
            self._directory / "store",
            self._directory / "build",
            self._directory / "packages",
            mirrors,
        )
        self.recipes = RecipeBook(recipes)
        self._limit_bytes = limit_bytes
        self._networks = networks

    @cached_property
    def intake(self) -> Intake:
        """Takes in images from files and URLs."""
        from blocks.images.intake.download import Downloader
        from blocks.images.intake.importing import Intake
        from blocks.images.intake.reach import Reach

        return Intake(
            self._directory / "store",
            self._directory / "build",
            self._limit_bytes,
            self._directory.parent,
            Downloader(Reach(self._networks)),
        )

    @cached_property
    def editor(self) -> Editor:
        """Makes images from others by changing files in them."""
        from blocks.images.editing import Editor

        return Editor(self._directory / "store", self._directory / "build", self._exports)

    def build(
        self, recipe: str | Recipe, image_id: str, progress: Callable[[str], None]
    ) -> BuiltImage:
        """Build an image of a recipe into the catalogue's directory; twice is once.

        Args:
            recipe: What to build, or the name of one of `recipes`.
            image_id: The image's id, chosen before.
            progress: Told in words what is done next.

        Raises:
            NotFound: There is no such recipe.
            Unsupported: This host lacks a package or a program.
            HostFault: A program failed.
        """
        if isinstance(recipe, str):
            recipe = self.recipes.find(recipe)
        return self._builder.build(recipe, image_id, progress)

    def keep_cloud_init(self, image_id: str, files: GuestFiles) -> CloudInit | None:
        """Look at an image's cloud-init, and keep its schema; None where it has none.

        Raises:
            UnsafeImage: A file of it is out of all proportion.
        """
        return self._builder.keep_cloud_init(image_id, files)

    def cloud_config_schema(self, image_id: str) -> Path | None:
        """The schema for cloud-configs of an image's cloud-init; None where none is known."""
        path = self._builder.schema(image_id)
        return path if path.is_file() else None

    def remove_image(self, image_id: str) -> None:
        """Remove an image's file, and what an unfinished build of it left; twice is fine."""
        self._builder.remove(image_id)

    def fetch_base(self, image: Image, progress: FetchProgress) -> Path:
        """Have the image's base in this host's cache: checksum compared, content inspected.

        Args:
            image: The image; of several callers at once one copies, the others wait for it.
            progress: Called with the bytes that are there and the bytes in all.

        Raises:
            NotFound: The catalogue's file is gone.
            UnsafeImage: The file is not what the catalogue says, or reaches outside of itself.
        """
        return self._cache.fetch(image, progress)

    def cached(self, image: Image) -> Path:
        """Where `fetch_base` puts an image's base."""
        return self._cache.path(image)

    def remove_base(self, image: Image) -> None:
        """Remove an image's base; the caller knows that no disk is based on it any more."""
        self._cache.remove(image)

    def remove_other_bases(self, needed: Callable[[], Needed], idle: Idle) -> dict[str, int]:
        """Remove bases that nothing needs from this host's cache; see `BaseCache`."""
        return self._cache.remove_others(needed, idle)

    def create_disk(
        self,
        base: Path,
        base_format: ImageFormat,
        path: Path,
        copied: Percents | None = None,
    ) -> None:
        """Create a qcow2 disk on a base, owned by its directory's owner; see `disks`.

        Args:
            base: The base, from `fetch_base`.
            base_format: Its format.
            path: The disk.
            copied: A full copy that needs no base, instead of an overlay; told how far it is.

        Raises:
            Conflict: Another disk is there already.
            HostFault: There is no room for it.
        """
        if copied is None:
            disks.create(base, base_format, path)
        else:
            disks.copy(base, base_format, path, copied)

    def create_encrypted_disk(
        self,
        base: Path,
        path: Path,
        passphrase: str,
        size_bytes: int,
        copied: Percents | None = None,
    ) -> None:
        """Create an encrypted qcow2 disk on an encrypted base, at its size from the start.

        Args:
            base: The base, from `fetch_base`.
            path: The disk.
            passphrase: The key of both.
            size_bytes: What the guest sees.
            copied: A full copy that needs no base, instead of an overlay; told how far it is.

        Raises:
            Conflict: Another disk is there already.
            HostFault: There is no room for it.
        """
        if copied is None:
            disks.create_encrypted(base, path, passphrase, size_bytes)
        else:
            disks.copy_encrypted(base, path, passphrase, size_bytes, copied)

    def resize_disk(self, path: Path, size_bytes: int) -> None:
        """Make a qcow2 disk that no guest is using that large; never smaller.

        Raises:
            InvalidRequest: It is larger already.
        """
        disks.resize(path, size_bytes)

    def remove_disk(self, path: Path) -> None:
        """Remove a disk or config drive, and what a killed step left of making it."""
        self._exports.release(part_of(path))
        part_of(path).unlink(missing_ok=True)
        if path.exists():
            path.unlink()
            changes.record(f"Removed {path}", ["rm", str(path)])

    def build_config_drive(self, path: Path, files: Mapping[str, bytes]) -> None:
        """Make a config drive (ISO 9660, volume `config-2`); see `config_drive`."""
        build_config_drive(path, files)

    def inject(
        self,
        disk: Path,
        files: Sequence[InjectedFile],
        keys: Mapping[str, Sequence[str]] | None = None,
        *,
        replace_keys: bool = False,
    ) -> None:
        """Put files and login keys into a qcow2 disk's root file system; see `injection`."""
        self._injector.inject(disk, files, keys or {}, replace_keys=replace_keys)

    def end_injection(self, disk: Path) -> None:
        """End what an interrupted injection left: the disk's export and its daemon."""
        self._exports.release(disk)

    def check(self, image: Image, *, trusted: bool, method: Method | None = None) -> CheckReport:
        """Look into an image without booting it; see `check`.

        Args:
            image: The image.
            trusted: Whether the host's kernel may read it; see `access.opening`.
            method: The way in; none: the one that suits.

        Raises:
            Conflict: Its file is not what the catalogue says.
            Denied: The method is none for an image that is not trusted.
            Unsupported: Nothing here can read its file systems.
        """
        from blocks.images.check.of_image import check_image

        return check_image(
            image, self._exports, self.keep_cloud_init, trusted=trusted, method=method
        )

    def inventory(self) -> list[Found]:
        """The catalogue's files, and what is being made: see `leftovers`."""
        return leftovers.inventory(self._directory, self._exports)

    def remove(self, found: Found) -> None:
        """Remove one thing that `inventory` told of; already gone is fine."""
        leftovers.remove(found, self._directory, self._exports)

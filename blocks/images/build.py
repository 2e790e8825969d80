"""Building an image of a recipe: packages, tree, bootable disk, qcow2, in the catalogue."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from blocks import changes
from blocks.images import busybox_guest, debian_guest
from blocks.images.cloud_init import CloudInit, GuestFiles, TreeFiles, look
from blocks.images.disk_layout import make_disk
from blocks.images.files import part_of, replacing
from blocks.images.locks import locked
from blocks.images.packages import PackageSource
from blocks.images.recipe import BusyboxRecipe, Recipe
from blocks.images.stored import StoredImage, read_note, store, write_note
from blocks.resources.image import ImageFormat

BuildProgress = Callable[[str], None]


class BuiltImage(StoredImage):
    """An image that was built: what the catalogue has to know of it.

    Attributes:
        login_user: Who one logs in as with the key.
        ready_marker: The regular expression of the console line that ends the first boot.
        boot_timeout_s: How long a boot may take under QEMU's emulation on a busy machine.
        cloud_init: Its cloud-init, if it has one.
    """

    min_disk_gib: int
    min_ram_mib: int
    login_user: str
    ready_marker: str
    boot_timeout_s: int
    os: str
    cloud_init: CloudInit | None = None


class Builder:
    """Builds images.

    Args:
        store: Where finished images go.
        scratch: Where one directory a build is made, and removed again.
        packages: Kept between builds: downloaded packages.
        mirrors: Mirrors' URLs by distribution; none means what this host's apt is set up with.
    """

    def __init__(
        self, store: Path, scratch: Path, packages: Path, mirrors: Mapping[str, str | None]
    ) -> None:
        self._store = store
        self._scratch = scratch
        self._packages = packages
        self._mirrors = mirrors

    def build(self, recipe: Recipe, image_id: str, progress: BuildProgress) -> BuiltImage:
        """Build an image; if this very image was finished before, it is that one.

        Args:
            recipe: What to build.
            image_id: The image's id in the catalogue, chosen before.
            progress: Told in words what is done next.

        Raises:
            Unsupported: A package or a program is missing.
            HostFault: A program failed.
        """
        for directory in (self._store, self._scratch, self._packages):
            directory.mkdir(parents=True, exist_ok=True, mode=0o755)
        with locked(self._scratch / f"{image_id}.lock"):
            scratch = self._scratch / image_id
            shutil.rmtree(scratch, ignore_errors=True)
            finished = self.finished(image_id)
            if finished is not None:
                return finished
            scratch.mkdir()
            try:
                return self._build(recipe, image_id, scratch, progress)
            finally:
                progress("cleaning up")
                shutil.rmtree(scratch)

    def path(self, image_id: str) -> Path:
        """The file of an image in the store."""
        return self._store / f"{image_id}.{ImageFormat.QCOW2}"

    def schema(self, image_id: str) -> Path:
        """Where the schema of an image's cloud-init is kept, if it has one."""
        return self._store / f"{image_id}.schema"

    def keep_cloud_init(self, image_id: str, files: GuestFiles) -> CloudInit | None:
        """Look at an image's cloud-init, and keep its schema; None where it has none.

        Raises:
            UnsafeImage: A file of it is out of all proportion.
        """
        found = look(files)
        if found is None:
            return None
        seen, schema = found
        if schema is None:
            return seen
        content = schema.encode()
        with replacing(self.schema(image_id), mode=0o644) as part:
            part.write_bytes(content)
        return seen.model_copy(update={"schema_sha256": hashlib.sha256(content).hexdigest()})

    def finished(self, image_id: str) -> BuiltImage | None:
        """What an earlier build of this id made, if it came to its end."""
        return read_note(BuiltImage, self._note(image_id))

    def remove(self, image_id: str) -> None:
        """Remove an image's file, and what is known of its build."""
        shutil.rmtree(self._scratch / image_id, ignore_errors=True)
        self._note(image_id).unlink(missing_ok=True)
        self.schema(image_id).unlink(missing_ok=True)
        for form in ImageFormat:
            path = self._store / f"{image_id}.{form}"
            part_of(path).unlink(missing_ok=True)
            if path.exists():
                path.unlink()
                changes.record(f"Removed the image file {path}", ["rm", str(path)])

    def _note(self, image_id: str) -> Path:
        return self._store / f"{image_id}.json"

    def _build(
        self, recipe: Recipe, image_id: str, scratch: Path, progress: BuildProgress
    ) -> BuiltImage:
        progress(f"putting the tree of {recipe.name} together from packages")
        with locked(self._packages / "lock"):
            tree = self._tree(recipe, scratch, progress)
        seen_inside = self.keep_cloud_init(image_id, TreeFiles(tree))
        progress(f"making a bootable disk of {recipe.disk_mib} MiB")
        raw = scratch / "disk.raw"
        make_disk(tree, raw, recipe.disk_mib, recipe.grows_to_gib)
        progress("converting to qcow2")
        what = f"Built the image {recipe.name}"
        stored = store(raw, ImageFormat.RAW, self.path(image_id), what)
        built = BuiltImage(
            **stored.model_dump(),
            min_disk_gib=recipe.min_disk_gib,
            min_ram_mib=recipe.min_ram_mib,
            login_user=recipe.login_user,
            ready_marker=recipe.ready_marker,
            boot_timeout_s=recipe.boot_timeout_s,
            os=recipe.os,
            cloud_init=seen_inside,
        )
        write_note(self._note(image_id), built)
        return built

    def _tree(self, recipe: Recipe, scratch: Path, progress: BuildProgress) -> Path:
        if isinstance(recipe, BusyboxRecipe):
            source = PackageSource(self._packages, self._mirrors.get("debian"))
            return busybox_guest.make_tree(recipe, source, scratch)
        progress(f"running mmdebstrap for {recipe.suite}")
        return debian_guest.make_tree(recipe, self._mirrors, self._packages, scratch)

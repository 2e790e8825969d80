"""Recipes: small declarative files that say how an image is made.

A recipe is a folder with `recipe.toml` and the files that go into the guest. Two kinds:
`busybox` (a guest put together from a few programs) and `debian` (mmdebstrap: Debian and
Ubuntu). What `recipe_book` has read holds the files' contents, too: it is all that a build
needs, whatever becomes of the folder.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter

from blocks.images.inside_tree import place_of
from blocks.resources.base import ResourceName

PackageName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9+.-]+$")]
ModuleName = Annotated[str, Field(pattern=r"^[a-z0-9_-]+$")]
UnitName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.@-]+\.[a-z]+$")]


#: What the initial RAM disk of a `busybox` recipe does.
INITRD_SCRIPT = "initrd.sh"


def _without_dots(path: str) -> str:
    if any(part in (".", "..") for part in path.split("/")):
        raise ValueError("must not hold '.' or '..'")
    return path


def _regular_expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from error
    return text


InsidePath = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9_.@+-]+(/[A-Za-z0-9_.@+-]+)*$", max_length=255),
    AfterValidator(_without_dots),
]
#: A file of the recipe's folder: no path, and no name that begins with a dot.
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$")]
Words = Annotated[str, Field(pattern=r"^[ -~]*$", max_length=1000)]


class RecipeFile(BaseModel):
    """A file of the recipe's folder that goes into the guest.

    Attributes:
        source: Its name in the recipe's folder.
        path: Where it goes, without a leading slash.
        mode: Permission bits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: FileName
    path: InsidePath
    mode: int = Field(default=0o644, ge=0, le=0o7777)


class RecipeLink(BaseModel):
    """A symbolic link that is made in the guest.

    Attributes:
        path: Where it is, without a leading slash.
        target: What it says.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: InsidePath
    target: Annotated[str, Field(pattern=r"^[!-~]{1,255}$")]


class _Common(BaseModel):
    """What both kinds say.

    Attributes:
        contents: The files of the recipe's folder that it names; not in `recipe.toml`.
        base: The recipe that this one is an addition to.
        login_user: Who one logs in as with the key.
        ready_marker: A regular expression for the console line that ends the first boot.
        boot_timeout_s: Seconds that a boot may take under QEMU's emulation on a busy host.
        disk_mib: The image's virtual size.
        grows_to_gib: How far the root file system must be able to grow.
        kernel: Kernel packages; the first one that the package source knows is taken.
        packages: Further packages.
        kernel_options: The kernel's command line, without `root=`.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64"
    )

    contents: Mapping[FileName, bytes] = Field(default_factory=dict)
    base: ResourceName | None = None
    name: Annotated[ResourceName, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
    title: Words = ""
    os: Literal["linux"] = "linux"
    login_user: Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_-]{0,31}$")]
    ready_marker: Annotated[Words, AfterValidator(_regular_expression)]
    boot_timeout_s: int = Field(gt=0)
    min_disk_gib: int = Field(ge=1)
    min_ram_mib: int = Field(ge=32)
    disk_mib: int = Field(ge=16, le=65536)
    grows_to_gib: int = Field(default=2048, ge=1, le=2048)
    kernel: tuple[PackageName, ...] = Field(min_length=1)
    packages: tuple[PackageName, ...] = ()
    kernel_options: Words
    files: tuple[RecipeFile, ...] = ()

    @property
    def sources(self) -> set[str]:
        """The files of the recipe's folder that it needs."""
        return {file.source for file in self.files}

    @property
    def sha256(self) -> str:
        """What tells it from any other recipe, its files included."""
        document = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(document.encode()).hexdigest()

    def copy_files(self, files: Sequence[RecipeFile], tree: Path) -> None:
        """Copy files of the recipe into a tree, taking the place of what is there."""
        for file in files:
            target = place_of(tree, file.path)
            target.unlink(missing_ok=True)
            target.write_bytes(self.contents[file.source])
            target.chmod(file.mode)


class BusyboxRecipe(_Common):
    """A guest made of busybox, a few programs with their libraries, and an own init.

    Attributes:
        programs: Programs (paths inside the packages) that are copied with their libraries.
        early_modules: Kernel modules that the initial RAM disk loads, in this order.
        late_modules: Kernel modules that the init loads when login is possible.
    """

    kind: Literal["busybox"]
    programs: tuple[InsidePath, ...] = ()
    early_modules: tuple[ModuleName, ...] = ()
    late_modules: tuple[ModuleName, ...] = ()

    @property
    def sources(self) -> set[str]:
        """The files of the recipe's folder that it needs."""
        return {*super().sources, INITRD_SCRIPT}


class DebianRecipe(_Common):
    """A Debian, or what is made of it, by mmdebstrap.

    Attributes:
        distribution: Whose release it is.
        suite: The release's code name.
        components: The parts of the archive that packages are taken from.
        keyring: A file of the folder with keys that the archive may be signed by, besides
            those of the distribution's own keyring where this host has that.
        variant: mmdebstrap's variant.
        early_files: Files that are there before the packages are installed.
        links: Symbolic links that are made at the end.
        masked_units: systemd units that this guest does without.
        masked_generators: systemd generators that this guest does without.
        enabled_units: systemd units that are switched on.
    """

    kind: Literal["debian"]
    distribution: Literal["debian", "ubuntu"] = "debian"
    suite: Annotated[str, Field(pattern=r"^[a-z]{2,32}$")]
    components: tuple[Annotated[str, Field(pattern=r"^[a-z-]{1,32}$")], ...] = ("main",)
    keyring: Annotated[FileName, Field(pattern=r"\.(asc|gpg)$")] | None = None
    variant: Literal["apt", "minbase", "essential", "important"] = "minbase"
    early_files: tuple[RecipeFile, ...] = ()
    links: tuple[RecipeLink, ...] = ()
    masked_units: tuple[UnitName, ...] = ()
    masked_generators: tuple[Annotated[str, Field(pattern=r"^[a-z-]+$")], ...] = ()
    enabled_units: tuple[UnitName, ...] = ()

    @property
    def sources(self) -> set[str]:
        """The files of the recipe's folder that it needs."""
        named = {*super().sources, *(file.source for file in self.early_files)}
        return named | ({self.keyring} if self.keyring else set())


Recipe = BusyboxRecipe | DebianRecipe
_ADAPTER: TypeAdapter[Recipe] = TypeAdapter(Annotated[Recipe, Field(discriminator="kind")])


def valid_recipe(said: Mapping[str, Any]) -> Recipe:
    """The recipe that a document holds.

    Raises:
        ValidationError: It says something that a recipe does not have, or says it wrongly.
    """
    return _ADAPTER.validate_python(said)


def recorded_recipe(document: Mapping[str, Any]) -> Recipe:
    """The recipe that was recorded, as JSON, by `model_dump(mode="json")`."""
    return _ADAPTER.validate_json(json.dumps(document))

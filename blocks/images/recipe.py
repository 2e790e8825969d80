"""Recipes: small declarative files that say how an image is made.

A recipe is a folder with `recipe.toml` and the files that go into the guest. Two kinds:
`busybox` (a guest put together from a few programs) and `debian` (mmdebstrap).
"""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from blocks.errors import InvalidRequest, NotFound

RECIPES = Path(__file__).parent / "recipes"

PackageName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9+.-]+$")]
UnitName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.@-]+\.[a-z]+$")]


def _without_dots(path: str) -> str:
    if any(part in (".", "..") for part in path.split("/")):
        raise ValueError("must not hold '.' or '..'")
    return path


InsidePath = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9_.@+-]+(/[A-Za-z0-9_.@+-]+)*$"),
    AfterValidator(_without_dots),
]


class RecipeFile(BaseModel):
    """A file of the recipe's folder that goes into the guest.

    Attributes:
        source: Its name in the recipe's folder.
        path: Where it goes, without a leading slash.
        mode: Permission bits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
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
    target: str


class _Common(BaseModel):
    """What both kinds say.

    Attributes:
        folder: The recipe's folder; not in the file, set when it is read.
        login_user: Who one logs in as with the key.
        ready_marker: A regular expression for the console line that ends the first boot.
        boot_timeout_s: Seconds that a boot may take under QEMU's emulation on a busy host.
        disk_mib: The image's virtual size.
        grows_to_gib: How far the root file system must be able to grow.
        kernel: Kernel packages; the first one that the package source knows is taken.
        packages: Further packages.
        kernel_options: The kernel's command line, without `root=`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,62}$")]
    title: str
    os: str = "linux"
    login_user: str
    ready_marker: str
    boot_timeout_s: int = Field(gt=0)
    min_disk_gib: int = Field(ge=1)
    min_ram_mib: int = Field(ge=32)
    disk_mib: int = Field(ge=16, le=65536)
    grows_to_gib: int = Field(default=2048, ge=1, le=2048)
    kernel: tuple[PackageName, ...] = Field(min_length=1)
    packages: tuple[PackageName, ...] = ()
    kernel_options: str
    files: tuple[RecipeFile, ...] = ()

    def file(self, name: str) -> Path:
        """A file of the recipe's folder."""
        return self.folder / name

    def copy_files(self, files: Sequence[RecipeFile], tree: Path) -> None:
        """Copy files of the recipe into a tree, taking the place of what is there."""
        for file in files:
            target = tree / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            shutil.copyfile(self.file(file.source), target)
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
    early_modules: tuple[str, ...] = ()
    late_modules: tuple[str, ...] = ()


class DebianRecipe(_Common):
    """A Debian made by mmdebstrap.

    Attributes:
        suite: The release's code name.
        variant: mmdebstrap's variant.
        early_files: Files that are there before the packages are installed.
        links: Symbolic links that are made at the end.
        masked_units: systemd units that this guest does without.
        masked_generators: systemd generators that this guest does without.
        enabled_units: systemd units that are switched on.
    """

    kind: Literal["debian"]
    suite: Annotated[str, Field(pattern=r"^[a-z]+$")]
    variant: Literal["apt", "minbase", "essential", "important"] = "minbase"
    early_files: tuple[RecipeFile, ...] = ()
    links: tuple[RecipeLink, ...] = ()
    masked_units: tuple[UnitName, ...] = ()
    masked_generators: tuple[Annotated[str, Field(pattern=r"^[a-z-]+$")], ...] = ()
    enabled_units: tuple[UnitName, ...] = ()


Recipe = Annotated[BusyboxRecipe | DebianRecipe, Field(discriminator="kind")]
_ADAPTER: TypeAdapter[BusyboxRecipe | DebianRecipe] = TypeAdapter(Recipe)


def read_recipe(folder: Path) -> BusyboxRecipe | DebianRecipe:
    """Read the recipe in a folder.

    Raises:
        InvalidRequest: The file is not TOML, or says something a recipe does not have;
            the details name each field.
    """
    path = folder / "recipe.toml"
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
        return _ADAPTER.validate_python(said | {"folder": folder})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the recipe {path} is not TOML: {error}") from error
    except ValidationError as error:
        details = [
            f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()
        ]
        raise InvalidRequest(f"the recipe {path} is not valid", details=details) from error


def all_recipes() -> list[BusyboxRecipe | DebianRecipe]:
    """The recipes that come with Fifty Steps, by name."""
    return [read_recipe(path.parent) for path in sorted(RECIPES.glob("*/recipe.toml"))]


def find_recipe(name: str) -> BusyboxRecipe | DebianRecipe:
    """The recipe of that name.

    Raises:
        NotFound: There is none; the hint names those there are.
    """
    recipes = {recipe.name: recipe for recipe in all_recipes()}
    if name not in recipes:
        raise NotFound(
            f"there is no image recipe {name!r}", hint=f"there are: {', '.join(sorted(recipes))}"
        )
    return recipes[name]

"""Guests made of busybox: the tree and the initial RAM disk of a `busybox` recipe."""

from __future__ import annotations

import lzma
import os
import re
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from blocks.commands import run
from blocks.errors import HostFault
from blocks.images.disk_layout import boot_menu, install_loader_files
from blocks.images.packages import PackageSource
from blocks.images.recipe import INITRD_SCRIPT, BusyboxRecipe

_FOLDERS = (
    "bin",
    "dev",
    "etc",
    "lib",
    "mnt/config",
    "proc",
    "root",
    "run",
    "sys",
    "tmp",
    "var/log",
)
_MODULE_FOLDER = "lib/micro/modules"
_INITRD_FOLDERS = ("bin", "dev", "modules", "proc", "root", "sys")
_INITRD_APPLETS = ("sh", "mount", "insmod", "switch_root", "usleep", "dd", "blockdev")


def make_tree(recipe: BusyboxRecipe, source: PackageSource, scratch: Path) -> Path:
    """Put the root file system of a busybox guest together.

    Args:
        recipe: What goes in.
        source: Where the packages come from.
        scratch: An empty directory.

    Returns:
        The tree, with kernel, initial RAM disk and boot loader configuration.
    """
    tree = scratch / "tree"
    for folder in _FOLDERS:
        (tree / folder).mkdir(parents=True)
    (tree / "root").chmod(0o700)
    (tree / "tmp").chmod(0o1777)
    (tree / "sbin").symlink_to("bin")
    with ThreadPoolExecutor(1) as pool:
        # apt-get thinks for half a second about each of the two.
        kernel_packages = pool.submit(source.kernel, recipe.kernel)
        trees = [source.unpacked(path) for path in source.with_dependencies(recipe.packages)]
        kernel_trees = [source.unpacked(path) for path in kernel_packages.result()]

    busybox = _find(trees, "bin/busybox")
    _install_busybox(busybox, tree / "bin")
    for program in recipe.programs:
        found = _find(trees, program)
        target = tree / "bin" / found.name
        # A program that busybox has, too, is a link to busybox by now: that would be overwritten.
        target.unlink(missing_ok=True)
        shutil.copy2(found, target)
        _copy_libraries(found, trees, tree)
    recipe.copy_files(recipe.files, tree)
    _install_modules(kernel_trees, recipe.late_modules, tree / _MODULE_FOLDER)

    kernel = next(path for one in kernel_trees for path in (one / "boot").glob("vmlinuz-*"))
    shutil.copyfile(kernel, _made(tree / "boot") / "vmlinuz")
    _make_initrd(recipe, busybox, kernel_trees, scratch / "initrd", tree / "boot" / "initrd.img")
    install_loader_files(
        tree, boot_menu("/boot/vmlinuz", "/boot/initrd.img", recipe.kernel_options)
    )
    return tree


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _find(trees: Sequence[Path], path: str) -> Path:
    """A file of one of the packages; `/bin` and `/usr/bin` are taken for the same."""
    for tree in trees:
        for candidate in (tree / path, tree / "usr" / path, tree / path.removeprefix("usr/")):
            if candidate.is_file():
                return candidate
    raise HostFault(f"no package of the recipe holds {path}")


def _install_busybox(busybox: Path, folder: Path) -> None:
    """busybox, and a link to it for each of its applets."""
    shutil.copy2(busybox, folder / "busybox")
    for applet in run(busybox, "--list").stdout.split():
        if applet != "busybox":
            (folder / applet).symlink_to("busybox")
    if not (folder / "init").is_symlink():
        raise HostFault(f"{busybox} has no init")


def _copy_libraries(program: Path, trees: Sequence[Path], tree: Path) -> None:
    """Copy the shared libraries of a program, as the packages' own loader finds them."""
    loader = _find(trees, "lib64/ld-linux-x86-64.so.2").resolve()
    folders = [
        str(one / part)
        for one in trees
        for part in ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu")
        if (one / part).is_dir()
    ]
    said = run(loader, "--library-path", ":".join(folders), "--list", program).stdout
    target = _made(tree / "lib" / "x86_64-linux-gnu")
    for path in re.findall(r"=> (/\S+)", said):
        shutil.copy(path, target / Path(path).name)
    shutil.copy(loader, _made(tree / "lib64") / "ld-linux-x86-64.so.2")


def _install_modules(kernel_trees: Sequence[Path], names: Sequence[str], folder: Path) -> None:
    """Copy kernel modules, stripped, with the order in which to load them.

    A module that is not there is built into this kernel.
    """
    folder.mkdir(parents=True)
    order = []
    for name in names:
        pattern = re.compile(rf"{re.sub('[-_]', '[-_]', name)}\.ko(\.xz|\.zst)?")
        for path in _modules(kernel_trees):
            if pattern.fullmatch(path.name):
                target = folder / f"{name}.ko"
                _copy_module(path, target)
                run("strip", "--strip-debug", target)
                order.append(target.name)
                break
    (folder / "order").write_text("".join(f"{name}\n" for name in order))


def _modules(kernel_trees: Sequence[Path]) -> list[Path]:
    return [
        path
        for tree in kernel_trees
        for folder in ("lib/modules", "usr/lib/modules")
        for path in (tree / folder).rglob("*.ko*")
    ]


def _copy_module(path: Path, target: Path) -> None:
    """Copy a module; Ubuntu's come compressed."""
    if path.suffix == ".xz":
        target.write_bytes(lzma.decompress(path.read_bytes()))
    elif path.suffix == ".zst":
        run("zstd", "-q", "-d", path, "-o", target)
    else:
        shutil.copyfile(path, target)


def _make_initrd(
    recipe: BusyboxRecipe, busybox: Path, kernel_trees: Sequence[Path], tree: Path, target: Path
) -> None:
    """The initial RAM disk: drivers, and the script that grows the partition."""
    for folder in _INITRD_FOLDERS:
        if folder != "modules":
            (tree / folder).mkdir(parents=True)
    shutil.copy2(busybox, tree / "bin" / "busybox")
    for applet in _INITRD_APPLETS:
        (tree / "bin" / applet).symlink_to("busybox")
    (tree / "init").write_bytes(recipe.contents[INITRD_SCRIPT])
    (tree / "init").chmod(0o755)
    _install_modules(kernel_trees, recipe.early_modules, tree / "modules")
    names = sorted(os.path.relpath(path, tree) for path in tree.rglob("*"))
    archive = tree.with_suffix(".cpio")
    run(
        "cpio", "--quiet", "-o", "-H", "newc", "--owner=0:0", "-F", archive,
        stdin="".join(f"{name}\n" for name in names), cwd=tree,
    )  # fmt: skip
    # The kernel takes LZ4 in its legacy frame only (lz4 -l).
    run("lz4", "-q", "-f", "-l", "-9", archive, target)

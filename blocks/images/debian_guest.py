"""Debian and Ubuntu guests: the tree of a `debian` recipe, made by mmdebstrap."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path

from blocks.commands import run
from blocks.errors import HostFault, Unsupported
from blocks.images.disk_layout import boot_menu, install_loader_files
from blocks.images.inside_tree import place_of
from blocks.images.mirrors import DISTRIBUTIONS, Mirrors, asking, known_to_apt
from blocks.images.recipe import DebianRecipe

_TIMEOUT_S = 1800.0
_NAMESPACES = (
    *("setpriv", "--pdeathsig", "KILL", "--", "unshare"),
    *("--fork", "--pid", "--kill-child=KILL", "--mount-proc", "--propagation", "private", "--"),
)
#: What mmdebstrap or this host left in the tree, and a guest must make for itself.
_LEFT_BY_BUILD = (
    "etc/apt/apt.conf.d/99mmdebstrap",
    "etc/dpkg/dpkg.cfg.d/99mmdebstrap",
    "etc/machine-id",
    "var/lib/dbus/machine-id",
    "var/lib/systemd/random-seed",
)
#: Where apt keeps packages; ours are put there before, and apt checks each before it is used.
_ARCHIVES = "var/cache/apt/archives"
_LOGIN_FILE = "etc/cloud/cloud.cfg.d/91_login_user.cfg"


def make_tree(
    recipe: DebianRecipe, mirrors: Mapping[str, str | None], packages: Path, scratch: Path
) -> Path:
    """Make the root file system of a Debian or Ubuntu guest.

    mmdebstrap mounts /proc and the like in the tree, and starts many programs: it runs in a
    mount and a process namespace of its own, so that all of it ends when we do, however that is.

    Args:
        recipe: What goes in.
        mirrors: Mirrors' URLs by distribution; none means what this host's apt leads to.
        packages: Kept between builds: downloaded packages.
        scratch: An empty directory.

    Returns:
        The tree, with the boot loader's configuration.

    Raises:
        Unsupported: This host knows no source of that release, or has no key for it.
        HostFault: mmdebstrap failed.
    """
    tree = scratch / "tree"
    early = scratch / "early"
    early.mkdir()
    recipe.copy_files(recipe.early_files, early)
    sources = _sources(recipe, mirrors, scratch)
    kept = packages / recipe.suite
    kept.mkdir(parents=True, exist_ok=True)
    run(
        *_NAMESPACES,
        *("mmdebstrap", "--mode=root", f"--variant={recipe.variant}"),
        f"--include={','.join(dict.fromkeys((*recipe.kernel, *recipe.packages)))}",
        '--aptopt=APT::Install-Recommends "false"',
        # The tree is thrown away if anything fails: no need to flush each file.
        "--dpkgopt=force-unsafe-io",
        *("--skip=essential/unlink", "--skip=download/empty", "--skip=cleanup/apt/cache"),
        f"--setup-hook=sync-in {shlex.quote(str(early))} /",
        f'--setup-hook=mkdir -p "$1"/{_ARCHIVES}/partial',
        f"--setup-hook=sync-in {shlex.quote(str(kept))} /{_ARCHIVES}/partial",
        f"--customize-hook=sync-out /{_ARCHIVES} {shlex.quote(str(kept))}",
        f'--customize-hook=rm -rf "$1"/{_ARCHIVES}/*.deb',
        *(recipe.suite, tree, "-"),
        stdin="".join(f"{line}\n" for line in sources),
        timeout_s=_TIMEOUT_S,
    )
    _finish(recipe, tree)
    return tree


def _sources(recipe: DebianRecipe, mirrors: Mapping[str, str | None], scratch: Path) -> list[str]:
    """The lines of sources.list that the packages come from."""
    keyrings = _keyrings(recipe, scratch)
    pockets = Mirrors(mirrors, known_to_apt, asking(scratch)).pockets(recipe)
    options = f"[signed-by={','.join(map(str, keyrings))}]"
    parts = " ".join(recipe.components)
    return [f"deb {options} {one.url} {one.release} {parts}" for one in pockets]


def _keyrings(recipe: DebianRecipe, scratch: Path) -> list[Path]:
    """The keys that a release may be signed by."""
    keyring = DISTRIBUTIONS[recipe.distribution].keyring
    found = [keyring] if keyring.exists() else []
    if recipe.keyring is not None:
        # apt reads it as its own user, who may not be able to come near the recipe's folder.
        path = scratch / f"keyring{Path(recipe.keyring).suffix}"
        path.write_bytes(recipe.contents[recipe.keyring])
        found.append(path)
    if not found:
        raise Unsupported(
            f"{keyring} is missing, and the recipe brings no keyring",
            hint="install the package with the keyring of that distribution",
        )
    return found


def _finish(recipe: DebianRecipe, tree: Path) -> None:
    """Make the tree an image's: files, units, boot loader; nothing of this machine in it."""
    for left in _LEFT_BY_BUILD:
        place_of(tree, left).unlink(missing_ok=True)
    for key in (tree / "etc" / "ssh").glob("ssh_host_*"):
        key.unlink()
    # Empty, not missing: systemd then makes one at the first boot, and keeps it.
    place_of(tree, "etc/machine-id").touch()
    if (tree / "etc" / "cloud").is_dir():
        place_of(tree, _LOGIN_FILE).write_text(_login(recipe.login_user))
    recipe.copy_files(recipe.files, tree)
    for link in recipe.links:
        _link(tree, link.path, link.target)
    if recipe.enabled_units:
        run("systemctl", f"--root={tree}", "enable", "--quiet", *recipe.enabled_units)
    masked = [f"system/{unit}" for unit in recipe.masked_units]
    masked += [f"system-generators/{name}" for name in recipe.masked_generators]
    for name in masked:
        _link(tree, f"etc/systemd/{name}", "/dev/null")
    kernel, initrd = tree / "vmlinuz", tree / "initrd.img"
    if not kernel.is_symlink() or not initrd.is_symlink():
        raise HostFault(f"the packages of {recipe.name} made no /vmlinuz and /initrd.img")
    install_loader_files(tree, boot_menu("/vmlinuz", "/initrd.img", recipe.kernel_options))


def _link(tree: Path, path: str, target: str) -> None:
    place = place_of(tree, path)
    place.unlink(missing_ok=True)
    place.symlink_to(target)


def _login(user: str) -> str:
    """cloud-init's configuration that makes a user the one who logs in with the key."""
    said = {"system_info": {"default_user": {"name": user}}, "disable_root": user != "root"}
    # JSON is YAML.
    return f"#cloud-config\n{json.dumps(said)}\n"

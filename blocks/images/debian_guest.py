"""Debian guests: the tree of a `debian` recipe, made by mmdebstrap."""

from __future__ import annotations

import shlex
from pathlib import Path

from blocks.commands import run
from blocks.errors import HostFault, Unsupported
from blocks.images.disk_layout import boot_menu, install_loader_files
from blocks.images.packages import KEYRING
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


def make_tree(recipe: DebianRecipe, mirror: str | None, packages: Path, scratch: Path) -> Path:
    """Make the root file system of a Debian guest.

    mmdebstrap mounts /proc and the like in the tree, and starts many programs: it runs in a
    mount and a process namespace of its own, so that all of it ends when we do, however that is.

    Args:
        recipe: What goes in.
        mirror: A Debian mirror's URL; none means those that this host's apt knows.
        packages: Kept between builds: downloaded packages.
        scratch: An empty directory.

    Returns:
        The tree, with the boot loader's configuration.

    Raises:
        Unsupported: This host knows no source for that release.
        HostFault: mmdebstrap failed.
    """
    tree = scratch / "tree"
    early = scratch / "early"
    early.mkdir()
    recipe.copy_files(recipe.early_files, early)
    kept = packages / recipe.suite
    kept.mkdir(parents=True, exist_ok=True)
    run(
        *_NAMESPACES,
        *("mmdebstrap", "--mode=root", f"--variant={recipe.variant}"),
        f"--include={','.join((*recipe.kernel, *recipe.packages))}",
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
        stdin="".join(f"{line}\n" for line in _sources(recipe.suite, mirror)),
        timeout_s=_TIMEOUT_S,
    )
    _finish(recipe, tree)
    return tree


def _sources(suite: str, mirror: str | None) -> list[str]:
    """The lines of sources.list that the packages come from."""
    if not KEYRING.exists():
        raise Unsupported(f"{KEYRING} is missing", hint="install debian-archive-keyring")
    if mirror is not None:
        return [f"deb [signed-by={KEYRING}] {mirror} {suite} main"]
    known = run(
        "apt-get",
        *("indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)"),
        "Created-By: Packages",
    ).stdout
    releases = (suite, f"{suite}-updates", f"{suite}-security")
    lines = {
        f"deb [signed-by={KEYRING}] {words[0]} {words[1]} main"
        for line in known.splitlines()
        if len(words := line.split()) == 4
        and words[1] in releases
        and words[2:] == ["main", "Debian"]
    }
    if not lines:
        raise Unsupported(
            f"this host's apt knows no source of Debian {suite}",
            hint="set FIFTY_MIRROR to a Debian mirror, or run `apt-get update`",
        )
    return sorted(lines)


def _finish(recipe: DebianRecipe, tree: Path) -> None:
    """Make the tree an image's: files, units, boot loader; nothing of this machine in it."""
    for left in _LEFT_BY_BUILD:
        (tree / left).unlink(missing_ok=True)
    for key in (tree / "etc" / "ssh").glob("ssh_host_*"):
        key.unlink()
    # Empty, not missing: systemd then makes one at the first boot, and keeps it.
    (tree / "etc" / "machine-id").touch()
    recipe.copy_files(recipe.files, tree)
    for link in recipe.links:
        path = tree / link.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(link.target)
    run("systemctl", f"--root={tree}", "enable", "--quiet", *recipe.enabled_units)
    systemd = tree / "etc" / "systemd"
    masked = [systemd / "system" / unit for unit in recipe.masked_units]
    masked += [systemd / "system-generators" / name for name in recipe.masked_generators]
    for path in masked:
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to("/dev/null")
    kernel, initrd = tree / "vmlinuz", tree / "initrd.img"
    if not kernel.is_symlink() or not initrd.is_symlink():
        raise HostFault(f"the packages of {recipe.name} made no /vmlinuz and /initrd.img")
    install_loader_files(tree, boot_menu("/vmlinuz", "/initrd.img", recipe.kernel_options))

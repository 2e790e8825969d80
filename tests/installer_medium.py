"""A distribution's installation medium: an ISO that a BIOS boots, with a small kickstart on it.

The kernel and its drivers are those of Debian's installer (a cloud kernel knows no drive that
a medium could be in); the boot loader is isolinux; the installer, `unattended/init`, has this
host's sfdisk, mke2fs and extlinux; the system that it installs is the tree of `micro`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import pycdlib

from blocks.images.busybox_guest import make_tree
from blocks.images.locks import locked
from blocks.images.packages import KEYRING, PackageSource
from blocks.images.recipe import BusyboxRecipe
from blocks.images.recipe_book import RecipeBook
from tests.image_maker import run

LABEL = "FIFTYDISC"
_SUITE = "bookworm"
_INIT = Path(__file__).with_name("unattended") / "init"
_LOADER = Path("/usr/lib/ISOLINUX/isolinux.bin")
_LOADER_MODULE = Path("/usr/lib/syslinux/modules/bios/ldlinux.c32")
_BOOT_SECTOR = Path("/usr/lib/syslinux/mbr/mbr.bin")
_PROGRAMS = ("sfdisk", "mke2fs", "extlinux")
#: Parts of Debian's installer, without the kernel's version; what they need comes with them.
_UDEBS = ("kernel-image", "sata-modules", "scsi-modules", "isofs-modules", "ext4-modules")
_DRIVERS = ("virtio_pci", "virtio_blk", "ahci", "sr_mod", "isofs", "crc32c_generic", "ext4")
_MENU = """SERIAL 0 115200
DEFAULT install
PROMPT 0
LABEL install
  LINUX /boot/vmlinuz
  INITRD /boot/initrd.img
  APPEND console=ttyS0 quiet loglevel=4 no_timer_check 8250.nr_uarts=1
"""


def make_medium(path: Path, packages: Path, scratch: Path) -> Path:
    """Make the ISO.

    Args:
        path: The file to make.
        packages: Where a FIFTY_HOME keeps the packages of `micro`.
        scratch: An empty directory.

    Raises:
        FiftyError: A package cannot be had.
    """
    recipe = RecipeBook().find("micro")
    assert isinstance(recipe, BusyboxRecipe)
    (scratch / "system").mkdir()
    with locked(packages / "lock"):
        system = make_tree(recipe, PackageSource(packages), scratch / "system")
    archive = scratch / "system.tar"
    run("tar", "-c", "-f", archive, "-C", system, "--owner=0", "--group=0", ".")
    debian = _unpack_installer(scratch / "debian")
    disc = {
        "/isolinux/isolinux.bin": _LOADER,
        "/isolinux/ldlinux.c32": _LOADER_MODULE,
        "/isolinux/isolinux.cfg": _written(scratch / "isolinux.cfg", _MENU),
        "/boot/vmlinuz": debian / "boot" / "vmlinuz",
        "/boot/initrd.img": _make_initrd(scratch / "initrd", system / "bin" / "busybox", debian),
        "/system.tar": archive,
    }
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, rock_ridge="1.09", vol_ident=LABEL)
    names: dict[str, str] = {}
    for folder in ("isolinux", "boot"):
        iso.add_directory(f"/{folder.upper()}", rr_name=folder)
    for number, (name, file) in enumerate(disc.items()):
        # Rock Ridge has the real names, which isolinux reads, too.
        folder = Path(name).parent.as_posix().upper().rstrip("/")
        names[name] = f"{folder}/F{number}.;1"
        iso.add_file(str(file), names[name], rr_name=Path(name).name)
    iso.add_eltorito(
        names["/isolinux/isolinux.bin"], "/BOOT.CAT;1", rr_bootcatname="boot.cat",
        boot_load_size=4, boot_info_table=True,
    )  # fmt: skip
    iso.write(str(path))
    iso.close()
    return path


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def _unpack_installer(folder: Path) -> Path:
    """Fetch the kernel and drivers of Debian's installer with apt, and unpack them."""
    for name in ("lists/partial", "archives/partial", "tree"):
        (folder / name).mkdir(parents=True)
    _written(folder / "status", "")
    _written(
        folder / "sources.list",
        f"deb [signed-by={KEYRING}] {_mirror()} {_SUITE} main/debian-installer\n",
    )
    options = {
        "Dir::State::status": folder / "status",
        "Dir::State::lists": folder / "lists",
        "Dir::Cache": folder,
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "APT::Sandbox::User": "root",
        "APT::Update::Error-Mode": "any",
    }
    apt = ["-qq", *(word for name, said in options.items() for word in ("-o", f"{name}={said}"))]
    run("apt-get", *apt, "update")
    kernels = run("apt-cache", *apt, "pkgnames", "kernel-image-").split()
    newest = max((name for name in kernels if name.endswith("-amd64-di")), key=_by_version)
    version = newest.removeprefix("kernel-image-")
    run(
        *("apt-get", *apt, "install", "--download-only", "--yes", "--no-install-recommends"),
        *(f"{name}-{version}" for name in _UDEBS),
    )
    for package in (folder / "archives").glob("*.udeb"):
        run("dpkg-deb", "-x", package, folder / "tree")
    return folder / "tree"


def _mirror() -> str:
    """The Debian mirror that this host's apt is set up with."""
    wanted = ("indextargets", "--format", "$(RELEASE) $(COMPONENT) $(ORIGIN) $(REPO_URI)")
    for line in run("apt-get", *wanted, "Created-By: Packages").splitlines():
        if line.startswith(f"{_SUITE} main Debian "):
            return line.split()[3]
    raise AssertionError(f"this host's apt knows no source of Debian {_SUITE}")


def _by_version(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", name)]


def _make_initrd(tree: Path, busybox: Path, debian: Path) -> Path:
    """The installer's RAM disk: busybox, the programs with their libraries, the drivers."""
    for name in ("bin", "dev", "media", "modules", "proc", "sys", "tools"):
        (tree / name).mkdir(parents=True)
    shutil.copy2(busybox, tree / "bin" / "busybox")
    (tree / "bin" / "sh").symlink_to("busybox")
    shutil.copyfile(_INIT, tree / "init")
    (tree / "init").chmod(0o755)
    shutil.copyfile(_BOOT_SECTOR, tree / "mbr.bin")
    for name in _PROGRAMS:
        found = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
        assert found is not None, name
        shutil.copy2(found, tree / "tools" / name)
        for library in re.findall(r"(/\S+) \(0x", run("ldd", found)):
            target = tree / library.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(library, target)
            target.chmod(0o755)
    order = []
    for module in _in_order(debian, _DRIVERS):
        shutil.copyfile(module, tree / "modules" / module.name)
        order.append(module.name)
    _written(tree / "modules" / "order", "".join(f"{name}\n" for name in order))
    names = sorted(path.relative_to(tree).as_posix() for path in tree.rglob("*"))
    archive = tree.with_suffix(".cpio")
    subprocess.run(
        ["cpio", "--quiet", "-o", "-H", "newc", "--owner=0:0", "-F", str(archive)],
        input="".join(f"{name}\n" for name in names), text=True, cwd=tree, check=True,
    )  # fmt: skip
    target = tree.with_suffix(".img")
    run("lz4", "-q", "-f", "-l", archive, target)
    return target


def _in_order(debian: Path, names: Sequence[str]) -> Iterable[Path]:
    """The drivers, and those that they need before them, as depmod finds them."""
    (modules,) = (debian / "lib" / "modules").iterdir()
    run("depmod", "-b", debian, modules.name)
    found: dict[Path, None] = {}
    for name in names:
        said = run("modprobe", "-d", debian, "-S", modules.name, "--show-depends", name)
        for line in said.splitlines():
            if line.startswith("insmod "):
                found.setdefault(Path(line.split()[1]))
    return found

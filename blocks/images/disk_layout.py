"""The layout of a bootable disk: MBR, one partition, ext4, extlinux as the boot loader.

The file system is filled by mke2fs itself. Only extlinux wants it mounted (it asks the
kernel for the blocks of its own file); that happens in a mount namespace of its own, so that
neither mount nor loop device can outlive the process, however it ends.
"""

from __future__ import annotations

import os
from pathlib import Path

from blocks.commands import run
from blocks.errors import Unsupported

FIRST_SECTOR = 2048
SECTOR = 512
_MIB = 1024 * 1024
_BLOCK = 4096
#: Only the first 440 bytes are code; then come the disk's signature and the table.
_MBR_CODE = 440
#: What extlinux's own reader of file systems does not know, or a guest has no use for.
_FEATURES = "^64bit,^metadata_csum,^orphan_file,^metadata_csum_seed"
_BOOT_CODE = (Path("/usr/lib/syslinux/mbr/mbr.bin"), Path("/usr/lib/EXTLINUX/mbr.bin"))
_LOADER_MODULE = Path("/usr/lib/syslinux/modules/bios/ldlinux.c32")
#: Arguments: the image, the offset of the file system, a mount point.
_INSTALL_LOADER = (
    'mount -t ext4 -o "loop,offset=$2" "$1" "$3" && extlinux --install "$3/boot/extlinux"'
    ' && umount "$3"'
)


def boot_menu(kernel: str, initrd: str, options: str) -> str:
    """Boot menu of extlinux for one kernel; it says on the serial console what it loads.

    Args:
        kernel: The kernel's path in the guest.
        initrd: The initial RAM disk's path in the guest.
        options: The kernel's command line.
    """
    return (
        "SERIAL 0 115200\nDEFAULT linux\nPROMPT 0\nTIMEOUT 0\n"
        f"LABEL linux\n  LINUX {kernel}\n  INITRD {initrd}\n  APPEND {options}\n"
    )


def install_loader_files(tree: Path, menu: str) -> None:
    """Put the boot loader's module and configuration into a tree.

    Raises:
        Unsupported: syslinux is not installed.
    """
    _need(_LOADER_MODULE)
    folder = tree / "boot" / "extlinux"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ldlinux.c32").write_bytes(_LOADER_MODULE.read_bytes())
    (folder / "extlinux.conf").write_text(menu, encoding="ascii")


def make_disk(tree: Path, disk: Path, size_mib: int, grows_to_gib: int) -> None:
    """Make a raw disk image that boots, holding a tree.

    Args:
        tree: The root file system, with `boot/extlinux` in it.
        disk: The file to make; sparse.
        size_mib: The disk's size.
        grows_to_gib: mke2fs's `resize`: how far the file system can later grow.

    Raises:
        Unsupported: syslinux or extlinux is not installed.
        HostFault: A tool failed, for example because the tree does not fit.
    """
    code = next((path for path in _BOOT_CODE if path.exists()), _BOOT_CODE[0])
    _need(code)
    with disk.open("wb") as file:
        file.truncate(size_mib * _MIB)
    run(
        "sfdisk", "-q", "--no-reread", "--no-tell-kernel", disk,
        stdin=f"label: dos\nstart={FIRST_SECTOR}, type=83, bootable\n",
    )  # fmt: skip
    with disk.open("r+b") as file:
        file.write(code.read_bytes()[:_MBR_CODE])
    offset = FIRST_SECTOR * SECTOR
    run(
        "mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", "-b", str(_BLOCK), "-m", "0",
        "-O", _known_features(), "-J", "size=4",
        "-E", f"offset={offset},root_owner=0:0,nodiscard,resize={grows_to_gib * 1024**3 // _BLOCK}",
        "-d", tree, disk, str((size_mib * _MIB - offset) // _BLOCK),
        timeout_s=600,
    )  # fmt: skip
    mount_point = disk.with_suffix(".mount")
    mount_point.mkdir(exist_ok=True)
    run(
        "unshare", "--mount", "--propagation", "private", "--",
        "sh", "-c", _INSTALL_LOADER, "sh", disk, str(offset), mount_point,
        # Unmounting waits until the file system is on the disk.
        timeout_s=600,
    )  # fmt: skip
    mount_point.rmdir()


def _known_features() -> str:
    """The features to switch off, as far as this host's mke2fs knows them."""
    newer = ("orphan_file",)
    version = run("mke2fs", "-V").stderr.split()[1]
    if tuple(int(part) for part in version.split(".")[:2]) >= (1, 47):
        return _FEATURES
    return ",".join(part for part in _FEATURES.split(",") if part.lstrip("^") not in newer)


def _need(path: Path) -> None:
    if not os.access(path, os.R_OK):
        raise Unsupported(f"{path} is missing", hint="install syslinux-common and extlinux")

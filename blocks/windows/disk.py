"""The files of a disk with Windows: NTFS read by ntfscat, confined, never by the kernel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from blocks.commands import Confinement, Limits, run
from blocks.errors import HostFault, Transient, UnsafeImage, Unsupported
from blocks.images.exports import Exports
from blocks.images.file_systems import Kind
from blocks.images.partitions import Partition, read_map
from blocks.resources.image import ImageFormat
from blocks.windows.hives import HIVE_LIMIT, Hive

_FOLDER = "Windows/System32/config"
#: Hives by their names in the check, and where they lie.
HIVES = {"SYSTEM": f"{_FOLDER}/SYSTEM", "SOFTWARE": f"{_FOLDER}/SOFTWARE"}
_BOOT = "Boot/BCD"
_TEXT_LIMIT = 1024 * 1024
_MEMORY, _CPU_S, _TIMEOUT_S = 1024**3, 60, 180.0


class WindowsFiles:
    """What was read of a disk with Windows; the hives lie in a scratch directory.

    Attributes:
        hives: By `HIVES`' names, and `BCD` where the boot store was found.
        texts: Further files, by their paths.
        partition: The number of Windows' own partition.
    """

    def __init__(self, hives: dict[str, Hive], texts: dict[str, str], partition: int) -> None:
        self.hives = hives
        self.texts = texts
        self.partition = partition


@contextmanager
def open_windows(
    disk: Path, disk_format: ImageFormat, exports: Exports, wanted: tuple[str, ...] = ()
) -> Iterator[WindowsFiles]:
    """Read what is asked of a disk with Windows that no QEMU is using.

    Args:
        disk: The disk; one that `inspection` has passed.
        disk_format: Its format.
        exports: How it is seen as a raw file, and where the scratch space is.
        wanted: Small files of Windows' partition that are read too, where they are there.

    Raises:
        Unsupported: There is no Windows on it, or ntfs-3g's programs are not installed.
        UnsafeImage: A file system or file of it cannot be read within the limits.
    """
    with exports.open(disk, disk_format, writable=False) as raw:
        found = [
            one
            for one in read_map(raw).partitions
            if one.holds is not None and one.holds.kind is Kind.NTFS
        ]
    hives: dict[str, Path] = {}
    texts: dict[str, str] = {}
    number = None
    with ExitStack() as stack:
        kept = stack.enter_context(_scratch(exports, disk))
        for one in found:
            with exports.open(
                disk, disk_format, writable=False, window=(one.offset, one.size)
            ) as volume:
                if number is None and _read_hives(volume, kept, hives):
                    number = one.number
                    texts = _read_texts(volume, kept, wanted)
                _read(volume, _BOOT, kept / "BCD", hives, "BCD")
        if number is None:
            raise Unsupported(
                f"no Windows was found on {disk}", hint=f"it has {_kinds(found)} with NTFS"
            )
        yield WindowsFiles({name: Hive(path) for name, path in hives.items()}, texts, number)


@contextmanager
def _scratch(exports: Exports, disk: Path) -> Iterator[Path]:
    """A directory beside the disk's export: that one comes and goes with each partition."""
    with exports.scratch(disk.with_name(f"{disk.name}.windows")) as folder:
        yield folder


def _read_hives(volume: Path, kept: Path, hives: dict[str, Path]) -> bool:
    """Read the hives, all or none."""
    read = {name: path for name, where in HIVES.items() if _cat(volume, where, path := kept / name)}
    if len(read) < len(HIVES):
        return False
    hives |= read
    return True


def _read(volume: Path, where: str, path: Path, hives: dict[str, Path], name: str) -> None:
    if name not in hives and _cat(volume, where, path):
        hives[name] = path


def _read_texts(volume: Path, kept: Path, wanted: tuple[str, ...]) -> dict[str, str]:
    texts = {}
    for path in wanted:
        if _cat(volume, path, kept / "text", _TEXT_LIMIT):
            texts[path] = (kept / "text").read_text("utf-8", "replace")
    return texts


def _cat(volume: Path, where: str, target: Path, limit: int = HIVE_LIMIT) -> bool:
    """Copy a file out of an NTFS volume; whether it was there.

    Raises:
        UnsafeImage: It is too large, or the file system cannot be read.
    """
    limits = Limits(memory_bytes=_MEMORY, cpu_s=_CPU_S, file_bytes=limit)
    target.touch()
    confined = Confinement(limits, reads=(volume,), writes=(target,))
    try:
        done = run(
            *("ntfscat", "--force", "--quiet", volume, where),
            limits=confined,
            ok_codes=range(-64, 256),
            timeout_s=_TIMEOUT_S,
            output=target,
        )
    except Transient as error:
        raise UnsafeImage(f"{where} of an NTFS volume cannot be read in time") from error
    except HostFault as error:
        raise UnsafeImage(error.message) from error
    # ntfscat goes on where it cannot write, and says nothing of it.
    if target.stat().st_size >= limit:
        raise UnsafeImage(f"{where} of an NTFS volume has {limit} bytes or more")
    if done.returncode == 0:
        return True
    if "is not installed" in done.stderr:
        raise Unsupported("the program ntfscat is not installed", hint="install ntfs-3g")
    if target.stat().st_size == 0 and "No such file or directory" in done.stderr:
        return False
    raise UnsafeImage(
        f"{where} of an NTFS volume cannot be read "
        f"(ntfscat ended with {done.returncode}: {done.stderr.strip()[:160]})"
    )


def _kinds(found: list[Partition]) -> str:
    return f"{len(found)} partitions" if len(found) != 1 else "one partition"

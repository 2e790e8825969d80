"""`qemu-img`, always told the format, and limited where the content is not ours.

Without `-f` QEMU guesses the format from content that a guest may have written, and then
opens whatever a header names (CVE-2024-32498, CVE-2026-24708). So no call here leaves it out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from blocks.commands import Confinement, Limits, run
from blocks.errors import Conflict, HostFault
from blocks.images.progress import Percents, told_to
from blocks.resources.image import ImageFormat

#: As Nova's: one gigabyte of address space, half a minute of processor time.
INFO_LIMITS = Limits(memory_bytes=1024**3, cpu_s=30)
_COPY_LIMITS = Limits(memory_bytes=2 * 1024**3, cpu_s=3600)
_COPY_TIMEOUT_S = 3600.0


@dataclass(frozen=True)
class DiskInfo:
    """What `qemu-img info` tells of a disk.

    Attributes:
        format: The format it was opened as.
        virtual_size_bytes: What a guest sees.
        actual_size_bytes: What it takes on the host.
        backing_file: The file it is based on, as its header names it.
        backing_format: That file's format.
        data_file: A qcow2's external data file.
        encrypted: Whether its content is encrypted.
    """

    format: str
    virtual_size_bytes: int
    actual_size_bytes: int
    backing_file: str | None
    backing_format: str | None
    data_file: str | None
    encrypted: bool


def info(path: Path, disk_format: ImageFormat | str) -> DiskInfo:
    """What `qemu-img info` tells of a disk, also of one that a guest is using.

    Raises:
        HostFault: It is not of that format, or cannot be read.
    """
    return _info(path, disk_format, INFO_LIMITS)


def info_of_untrusted(path: Path, disk_format: str) -> DiskInfo:
    """The same of a file that anybody may have made: QEMU can open that one only.

    Raises:
        HostFault: It is not of that format, or cannot be read.
    """
    return _info(path, disk_format, Confinement(INFO_LIMITS, reads=(path,)))


def _info(path: Path, disk_format: str, limits: Limits | Confinement) -> DiskInfo:
    words = ("qemu-img", "info", "-U", "--output=json", "-f", disk_format, path)
    said = json.loads(run(*words, limits=limits).stdout)
    specific = said.get("format-specific", {}).get("data", {})
    return DiskInfo(
        format=said["format"],
        virtual_size_bytes=said["virtual-size"],
        actual_size_bytes=said["actual-size"],
        backing_file=said.get("backing-filename"),
        backing_format=said.get("backing-filename-format"),
        data_file=specific.get("data-file"),
        encrypted=bool(said.get("encrypted", False)),
    )


def require_unused(path: Path, disk_format: ImageFormat | str) -> None:
    """Make sure that no QEMU has the disk open (it would hold its lock).

    Raises:
        Conflict: A process uses it.
    """
    try:
        run("qemu-img", "info", "-f", disk_format, path, limits=INFO_LIMITS)
    except HostFault as error:
        if "lock" not in error.message:
            raise
        raise Conflict(f"the disk {path} is in use", hint="stop the guest first") from error


def create_empty(path: Path, size_bytes: int) -> list[str]:
    """Create an empty qcow2 of a virtual size.

    Returns:
        The command.
    """
    words = ["qemu-img", "create", "-q", "-f", "qcow2", str(path), str(size_bytes)]
    run(*words, limits=INFO_LIMITS)
    return words


def create_overlay(base: Path, base_format: ImageFormat | str, path: Path) -> list[str]:
    """Create a qcow2 that holds only the differences from its base.

    Returns:
        The command.
    """
    words = ["qemu-img", "create", "-q", "-f", "qcow2"]
    words += ["-b", str(base), "-F", str(base_format), str(path)]
    run(*words, limits=INFO_LIMITS)
    return words


def commit(overlay: Path) -> list[str]:
    """Write what a qcow2 overlay holds into the qcow2 below it; the overlay stays as it is.

    Returns:
        The command.
    """
    words = ["qemu-img", "commit", "-q", "-d", "-f", "qcow2", str(overlay)]
    run(*words, limits=_COPY_LIMITS, timeout_s=_COPY_TIMEOUT_S)
    return words


def rebase_unsafe(overlay: Path, base: Path) -> list[str]:
    """Have a qcow2 overlay's header name another qcow2, whose content has to be the same.

    Returns:
        The command.
    """
    words = ["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", str(base), "-F", "qcow2"]
    words.append(str(overlay))
    run(*words, limits=INFO_LIMITS)
    return words


def convert(
    source: Path,
    source_format: ImageFormat | str,
    target: Path,
    target_format: ImageFormat | str,
    *,
    compressed: bool = False,
    tell: Percents | None = None,
) -> list[str]:
    """Copy a disk into another format, leaving out what is zero.

    Args:
        source: What is copied.
        source_format: Its format.
        target: The file to make.
        target_format: Its format.
        compressed: For qcow2: compress the clusters (zstd).
        tell: Told now and then how far it is.

    Returns:
        The command.
    """
    words = ["qemu-img", "convert", "-f", str(source_format), "-O", str(target_format)]
    if compressed:
        words += ["-c", "-o", "compression_type=zstd"]
    words += [str(source), str(target)]
    run_copy(words, _COPY_LIMITS, tell)
    return words


@dataclass(frozen=True)
class Outcome:
    """What a conversion makes.

    Attributes:
        format: The target's format.
        compressed: For qcow2: compress the clusters (zstd).
        limit_bytes: The most that the target's file may have.
    """

    format: ImageFormat
    compressed: bool
    limit_bytes: int


def convert_untrusted(
    source: Path,
    source_format: str,
    target: Path,
    outcome: Outcome,
    tell: Percents | None = None,
) -> list[str]:
    """Copy a disk that anybody may have made: QEMU reaches these two files only.

    Args:
        source: What is copied; it was inspected.
        source_format: Its format.
        target: The file to make.
        outcome: What it is to be.
        tell: Told now and then how far it is.

    Returns:
        The command.

    Raises:
        HostFault: It cannot be read, or the target would be too large.
    """
    words = ["qemu-img", "convert", "-f", source_format, "-O", outcome.format]
    if outcome.compressed:
        words += ["-c", "-o", "compression_type=zstd"]
    words += [str(source), str(target)]
    target.touch()
    limits = replace(_COPY_LIMITS, file_bytes=outcome.limit_bytes)
    run_copy(words, Confinement(limits, reads=(source,), writes=(target,)), tell)
    return words


def run_copy(
    words: Sequence[str],
    limits: Limits | Confinement,
    tell: Percents | None,
    pass_fds: Sequence[int] = (),
) -> None:
    """Run a `qemu-img convert`, and tell meanwhile how far it is.

    Raises:
        HostFault: It failed.
    """
    if tell is None:
        run(*words, limits=limits, timeout_s=_COPY_TIMEOUT_S, pass_fds=pass_fds)
        return
    program, verb, *rest = words
    with told_to(tell) as said:
        run(
            *(program, verb, "-p", *rest),
            limits=limits,
            timeout_s=_COPY_TIMEOUT_S,
            pass_fds=pass_fds,
            output=said,
        )


def check_untrusted(path: Path, disk_format: str) -> None:
    """Check a qcow2's own consistency, as `check` does, with that file alone in reach."""
    words = ("qemu-img", "check", "-q", "-f", disk_format, path)
    run(*words, limits=Confinement(_COPY_LIMITS, reads=(path,)), timeout_s=600)


def resize(path: Path, disk_format: ImageFormat | str, size_bytes: int) -> list[str]:
    """Set the virtual size; larger than it is (qemu-img refuses to shrink).

    Returns:
        The command.
    """
    words = ["qemu-img", "resize", "-q", "-f", str(disk_format), str(path), str(size_bytes)]
    run(*words, limits=INFO_LIMITS)
    return words


def check(path: Path, disk_format: ImageFormat | str) -> None:
    """Check a qcow2's own consistency.

    Raises:
        HostFault: It has errors, or leaked clusters.
    """
    run("qemu-img", "check", "-q", "-f", disk_format, path, limits=_COPY_LIMITS, timeout_s=600)

"""What lies below a disk: the backing files of an overlay, as its headers name them."""

from __future__ import annotations

import json
from pathlib import Path

from blocks.commands import Limits, run
from blocks.errors import HostFault, UnsafeImage
from blocks.hypervisor.guest import BackingFile, DiskSpec
from blocks.resources import ImageFormat

_LIMITS = Limits(memory_bytes=1 << 30, cpu_s=30)


def backing_chain(disk: DiskSpec) -> tuple[BackingFile, ...]:
    """The files below a disk, nearest first.

    Reads the qcow2 headers with `qemu-img info`, also while a guest runs on the disk.
    Only an overlay's own header names its base, which a guest cannot write.

    Args:
        disk: A disk that step 27 or 39 has made.

    Raises:
        HostFault: The disk or one of the files below it is not there.
        UnsafeImage: A base without a recorded format, or with a data file.
    """
    if disk.format is not ImageFormat.QCOW2:
        if not disk.path.is_file():
            raise HostFault(f"the disk {disk.path} is not there")
        return ()
    told = run(
        *("qemu-img", "info", "-U", "-f", "qcow2", "--backing-chain", "--output=json"),
        disk.path,
        limits=_LIMITS,
    )
    layers = json.loads(told.stdout)
    chain = []
    for layer, lower in zip(layers, [*layers[1:], {}], strict=True):
        if "data-file" in layer.get("format-specific", {}).get("data", {}):
            raise UnsafeImage(f"{layer['filename']} keeps its data in another file")
        below = layer.get("full-backing-filename")
        if below is None:
            continue
        form = layer.get("backing-filename-format")
        if form not in set(ImageFormat):
            raise UnsafeImage(f"{layer['filename']} does not say what format its base has")
        encrypted = bool(lower.get("encrypted"))
        chain.append(BackingFile(path=Path(below), format=ImageFormat(form), encrypted=encrypted))
    return tuple(chain)

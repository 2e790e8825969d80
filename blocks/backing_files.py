"""What a qcow2 of ours is on, as its header says; without QEMU, and quick enough for a list.

Only an overlay's own header names its base, and no guest can write that one. What comes from
elsewhere is looked at by `blocks.images.inspection`.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

#: Magic number, version, place and length of the backing file's name (docs/interop/qcow2.txt).
_HEADER = struct.Struct(">4sIQI")
_MAGIC = b"QFI\xfb"
_LONGEST_NAME = 1023


def backing_file(path: Path) -> Path | None:
    """The file that a qcow2 is on; None where it is on none, or is no qcow2.

    Raises:
        FileNotFoundError: It is not there (any more).
        PermissionError: This user may not read it.
    """
    with path.open("rb") as file:
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            return None
        magic, _version, offset, length = _HEADER.unpack(header)
        if magic != _MAGIC or offset == 0 or not 0 < length <= _LONGEST_NAME:
            return None
        file.seek(offset)
        return Path(os.fsdecode(file.read(length)))

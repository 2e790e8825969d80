"""Registry hives, written from scratch: what a test says is in a Windows, as its files have it.

The format is that of Windows' own files (regf 1.5); `hivexsh` and `hivexget`, which know
nothing of this module, read what it writes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Union

#: A key: values (text, number, list of texts, bytes) and further keys, by their names.
Value = str | int | list[str] | bytes
Key = Mapping[str, Union[Value, "Key"]]

_NONE = 0xFFFFFFFF
_PAGE = 4096
_BIN_HEADER = 32
#: A security descriptor with nobody in it.
_DESCRIPTOR = struct.pack("<BBHIIII", 1, 0, 0x8000, 0, 0, 0, 0)


class _Cells:
    """The cells of the one hive bin, by their offsets."""

    def __init__(self) -> None:
        self._content = bytearray(_BIN_HEADER)

    def add(self, content: bytes) -> int:
        """Add a cell; the offset by which others refer to it."""
        at = len(self._content)
        size = (len(content) + 4 + 7) // 8 * 8
        self._content += struct.pack("<i", -size) + content.ljust(size - 4, b"\x00")
        return at

    def put(self, at: int, offset: int, content: bytes) -> None:
        """Change what is in a cell."""
        begin = at + 4 + offset
        self._content[begin : begin + len(content)] = content

    def finish(self) -> bytes:
        """The bin, with a free cell up to its end."""
        used = len(self._content)
        size = (used + 8 + _PAGE - 1) // _PAGE * _PAGE
        self._content += struct.pack("<i", size - used).ljust(size - used, b"\x00")
        self._content[:_BIN_HEADER] = struct.pack("<4sII8sQI", b"hbin", 0, size, b"", 0, 0)
        return bytes(self._content)


def hive(content: Key) -> bytes:
    """A hive file with these keys and values below its root."""
    cells = _Cells()
    security = cells.add(struct.pack("<2sHIIII", b"sk", 0, 0, 0, 1, len(_DESCRIPTOR)) + _DESCRIPTOR)
    cells.put(security, 4, struct.pack("<II", security, security))
    root = _key(cells, "ROOT", content, _NONE, security, flags=0x2C)
    bins = cells.finish()
    head = struct.pack("<4sIIQIIIIIII", b"regf", 1, 1, 0, 1, 5, 0, 1, root, len(bins), 1)
    head = head.ljust(0x1FC, b"\x00")
    checksum = 0
    for (word,) in struct.iter_unpack("<I", head):
        checksum ^= word
    return (head + struct.pack("<I", checksum)).ljust(_PAGE, b"\x00") + bins


def _key(
    cells: _Cells, name: str, content: Key, parent: int, security: int, flags: int = 0x20
) -> int:
    keys = {one: held for one, held in content.items() if isinstance(held, Mapping)}
    values = {one: held for one, held in content.items() if not isinstance(held, Mapping)}
    encoded = name.encode("latin-1")
    fixed = struct.pack("<2sHQIIIIIIIIII", b"nk", flags, 0, 0, parent, len(keys), 0,
                        _NONE, _NONE, len(values), _NONE, security, _NONE)  # fmt: skip
    at = cells.add(fixed + bytes(20) + struct.pack("<HH", len(encoded), 0) + encoded)
    if values:
        offsets = [_value(cells, one, held) for one, held in values.items()]
        cells.put(at, 40, struct.pack("<I", cells.add(struct.pack(f"<{len(offsets)}I", *offsets))))
    if keys:
        listed = b""
        for one, held in sorted(keys.items(), key=lambda item: item[0].upper()):
            below = _key(cells, one, held, at, security)
            listed += struct.pack("<I4s", below, one.encode("latin-1")[:4])
        cells.put(
            at, 28, struct.pack("<I", cells.add(struct.pack("<2sH", b"lf", len(keys)) + listed))
        )
    return at


def _value(cells: _Cells, name: str, held: Value) -> int:
    if isinstance(held, int):
        kind, data = 4, struct.pack("<I", held)
    elif isinstance(held, str):
        kind, data = 1, f"{held}\x00".encode("utf-16-le")
    elif isinstance(held, list):
        kind, data = 7, "".join(f"{one}\x00" for one in [*held, ""]).encode("utf-16-le")
    else:
        kind, data = 3, held
    size, where = len(data), data.ljust(4, b"\x00")
    if size > 4:
        where = struct.pack("<I", cells.add(data))
    else:
        size |= 0x80000000
    encoded = name.encode("latin-1")
    fixed = struct.pack("<2sHI4sIHH", b"vk", len(encoded), size, where, kind, 1, 0)
    return cells.add(fixed + encoded)

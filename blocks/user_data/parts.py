"""Taking user data apart: MIME messages, archives and compressed parts, within limits."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_string
from email.message import Message

from blocks.user_data.bounded_yaml import load
from blocks.user_data.kinds import Kind, is_message, kind_of

MOST_PARTS = 64
#: A part that is unpacked may be that large: gzip turns 1 MiB into 1 GiB.
UNPACKED_LIMIT = 1024 * 1024
_DEEPEST_MESSAGE = 8
#: What cloud-init unpacks (`cloudinit.user_data.DECOMP_TYPES`).
_PACKED = tuple(
    f"application/{name}"
    for name in (
        *("gzip", "gzip-compressed", "gzipped", "x-compress", "x-compressed", "x-gunzip"),
        *("x-gzip", "x-gzip-compressed"),
    )
)
#: Types that say nothing: what the text begins with decides (`TYPE_NEEDED` there).
_SAY_NOTHING = ("text/plain", "text/x-not-multipart", Kind.SCRIPT.value)


@dataclass(frozen=True)
class Part:
    """A piece of user data.

    Attributes:
        kind: What it is; None where cloud-init would not know.
        text: Its content, unpacked.
        number: Which part it is, from 1; None where it is all there is.
    """

    kind: Kind | None
    text: str
    number: int | None = None

    @property
    def where(self) -> str:
        """How a message begins that is about it."""
        return f"part {self.number} " if self.number is not None else ""


def parts_of(text: str) -> list[Part]:
    """The parts that cloud-init would handle one by one, in order.

    Raises:
        ValueError: It cannot be taken apart; the message quotes none of it.
    """
    if not is_message(text):
        return _opened(Part(kind_of(text), text))
    found: list[Part] = []
    for number, piece in enumerate(_pieces(text), 1):
        if number > MOST_PARTS:
            raise ValueError(f"has more than {MOST_PARTS} parts")
        found += _opened(_part(piece, number))
    if not found:
        raise ValueError("is a MIME message without parts")
    return found


def _pieces(text: str) -> Iterator[Message]:
    """The leaves of a MIME message."""
    try:
        message = message_from_string(text)
    except RecursionError:
        raise ValueError(f"has messages nested deeper than {_DEEPEST_MESSAGE} levels") from None
    waiting = [(message, 1)]
    while waiting:
        piece, depth = waiting.pop()
        if depth > _DEEPEST_MESSAGE:
            raise ValueError(f"has messages nested deeper than {_DEEPEST_MESSAGE} levels")
        if piece.defects:
            # What the parser could not make sense of, the guest's cannot either.
            raise ValueError(f"is no whole MIME message ({type(piece.defects[0]).__name__})")
        if piece.is_multipart():
            inner = [one for one in piece.get_payload() if isinstance(one, Message)]
            waiting += [(one, depth + 1) for one in reversed(inner)]
        else:
            yield piece


def _part(piece: Message, number: int) -> Part:
    said = piece.get_content_type()
    content = piece.get_payload(decode=True)
    content = content if isinstance(content, bytes) else b""
    if said in _PACKED:
        content = _unpacked(content, number)
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise ValueError(f"part {number} is no text in UTF-8") from None
    if said in _PACKED or said in _SAY_NOTHING:
        return Part(kind_of(text) or _kind(said), text, number)
    return Part(_kind(said), text, number)


def _kind(content_type: str) -> Kind | None:
    return Kind(content_type) if content_type in set(Kind) else None


def _unpacked(content: bytes, number: int) -> bytes:
    """The content of a gzip file, up to the limit."""
    unpacker = zlib.decompressobj(wbits=31)
    try:
        unpacked = unpacker.decompress(content, UNPACKED_LIMIT + 1)
    except zlib.error:
        raise ValueError(f"part {number} is not gzip, as it says") from None
    if len(unpacked) > UNPACKED_LIMIT:
        raise ValueError(f"part {number} is over {UNPACKED_LIMIT} bytes when it is unpacked")
    if not unpacker.eof:
        raise ValueError(f"part {number} is gzip that ends early")
    return unpacked


def _opened(part: Part) -> list[Part]:
    """The part itself, or the entries of an archive (which hold no further archives)."""
    if part.kind is not Kind.ARCHIVE:
        return [part]
    try:
        entries = load(part.text)
    except ValueError as error:
        raise ValueError(f"{part.where}{error}") from None
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{part.where}must be a YAML list after #cloud-config-archive")
    if len(entries) > MOST_PARTS:
        raise ValueError(f"{part.where}has more than {MOST_PARTS} entries")
    return [_entry(entry, number) for number, entry in enumerate(entries, 1)]


def _entry(entry: object, number: int) -> Part:
    content = entry.get("content") if isinstance(entry, dict) else entry
    if not isinstance(content, str):
        raise ValueError(f"part {number} must be text, or have a content that is text")
    said = entry.get("type") if isinstance(entry, dict) else None
    if said is None:
        return Part(kind_of(content) or _untyped(content), content, number)
    return Part(_kind(said) if isinstance(said, str) else None, content, number)


def _untyped(content: str) -> Kind | None:
    """cloud-init takes an entry that says nothing for a cloud-config; then it has to be one."""
    try:
        return Kind.CLOUD_CONFIG if isinstance(load(content), dict) else None
    except ValueError:
        return None

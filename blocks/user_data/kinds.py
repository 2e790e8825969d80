"""The kinds of user data, by how they begin (cloud-init's `cloudinit.handlers`)."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """What user data, or a part of it, is; the value is cloud-init's content type."""

    CLOUD_CONFIG = "text/cloud-config"
    SCRIPT = "text/x-shellscript"
    INCLUDE = "text/x-include-url"
    INCLUDE_ONCE = "text/x-include-once-url"
    JINJA = "text/jinja2"
    BOOTHOOK = "text/cloud-boothook"
    PART_HANDLER = "text/part-handler"
    ARCHIVE = "text/cloud-config-archive"
    JSON_PATCH = "text/cloud-config-jsonp"
    #: Of MIME parts only: scripts that are kept for other moments.
    PER_BOOT = "text/x-shellscript-per-boot"
    PER_INSTANCE = "text/x-shellscript-per-instance"
    PER_ONCE = "text/x-shellscript-per-once"

    @property
    def words(self) -> str:
        """What a person calls it."""
        return _TITLES[self]


_TITLES = {
    Kind.CLOUD_CONFIG: "cloud-config",
    Kind.SCRIPT: "script",
    Kind.INCLUDE: "include",
    Kind.INCLUDE_ONCE: "include-once",
    Kind.JINJA: "Jinja template",
    Kind.BOOTHOOK: "boothook",
    Kind.PART_HANDLER: "part handler",
    Kind.ARCHIVE: "cloud-config archive",
    Kind.JSON_PATCH: "JSON patch",
    Kind.PER_BOOT: "script per boot",
    Kind.PER_INSTANCE: "script per instance",
    Kind.PER_ONCE: "script once",
}

#: The longer ones first: `#include-once` also begins with `#include`.
_BEGINNINGS = sorted(
    {
        "#cloud-config": Kind.CLOUD_CONFIG,
        "#!": Kind.SCRIPT,
        "#include": Kind.INCLUDE,
        "#include-once": Kind.INCLUDE_ONCE,
        "## template: jinja": Kind.JINJA,
        "#cloud-boothook": Kind.BOOTHOOK,
        "#part-handler": Kind.PART_HANDLER,
        "#cloud-config-archive": Kind.ARCHIVE,
        "#cloud-config-jsonp": Kind.JSON_PATCH,
    }.items(),
    key=lambda item: -len(item[0]),
)
#: What can stand under a Jinja header: cloud-init renders it, then looks what it is.
TEMPLATED = (Kind.CLOUD_CONFIG, Kind.SCRIPT, Kind.BOOTHOOK, Kind.JSON_PATCH)

BEGINNINGS = tuple(sorted(beginning for beginning, _kind in _BEGINNINGS))


def kind_of(text: str) -> Kind | None:
    """What a text is by its beginning, as cloud-init sees it; None where it would not know."""
    low = text[:4096].lower().lstrip()
    return next((kind for start, kind in _BEGINNINGS if low.startswith(start)), None)


def is_message(text: str) -> bool:
    """Whether cloud-init would take it for a MIME message (`cloudinit.user_data`)."""
    return "mime-version:" in text[:4096].lower()

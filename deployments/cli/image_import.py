"""`fifty image import`: an image from a file or a URL."""

from __future__ import annotations

from pathlib import Path

from blocks.errors import InvalidRequest
from deployments.cli import image_views, output
from deployments.cli.context import Credentials, Flag, Json, Several, request_of, require_root
from deployments.cli.detaching import Detach, send
from deployments.cli.flow_runs import run_flow
from deployments.cli.scope import open_scope


def import_(
    name: str,
    source: str,
    /,
    *,
    format: str | None = None,
    sha256: str | None = None,
    sha256sums: Flag = False,
    version: str | None = None,
    to: str | None = None,
    no_compress: Flag = False,
    encrypted: Flag = False,
    passphrase_secret: str | None = None,
    min_disk: int | None = None,
    min_ram: int | None = None,
    os: str | None = None,
    login_user: str | None = None,
    public: Flag = False,
    property: Several = None,
    detach: Detach = False,
    credentials: Credentials = None,
    json: Json = False,
) -> None:
    """Import an image from a file or an http(s) URL; also packed by gzip, xz or zstd.

    Args:
        name: What the image is to be called.
        source: A URL, or a file of this host.
        format: What it has to be: raw, qcow2, vmdk, vdi, vhdx (default: by its first bytes).
        sha256: The checksum that the source has to have.
        sha256sums: Compare it with the file SHA256SUMS beside the source.
        version: Tells it from others of its name (default: 1).
        to: How it is kept: qcow2 (default) or raw.
        no_compress: Keep a qcow2 without compression; it is larger, and read faster.
        encrypted: It is a qcow2 with LUKS inside, and stays one.
        passphrase_secret: Name of a Prefect Secret block: opens an encrypted image, and
            encrypts any other one.
        min_disk: GiB that a flavor's disk has to have (default: its virtual size).
        min_ram: MiB that a flavor has to have (default: any).
        os: The operating system: linux (default), windows, or another word.
        login_user: Who one logs in as with the key (default: root).
        public: Every tenant can use it.
        property: NAME=VALUE, what else is said of it, such as hw_firmware_type=uefi.
    """
    path = source if "://" in source else str(Path(source).absolute())
    request = request_of(
        credentials,
        name=name,
        source=path,
        format=format,
        sha256=sha256,
        version=version,
        to=to,
        passphrase_secret=passphrase_secret,
        min_disk_gib=min_disk,
        min_ram_mib=min_ram,
        os=os,
        login_user=login_user,
        sha256sums=sha256sums or None,
        compress=False if no_compress else None,
        encrypted=encrypted or None,
        visibility="public" if public else None,
        properties=properties_of(property or []) or None,
    )
    if detach:
        send("import-image", request, json=json, look="fifty image list")
        return
    require_root("importing an image")
    if not json:
        output.note(f"Importing {output.plain(name)} from {output.plain(path)}.")
    run_flow("import_image", request).require_success()
    word = name if version is None else f"{name}:{version}"
    image_views.tell(open_scope(credentials).image(word), json=json)


def properties_of(words: list[str]) -> dict[str, str]:
    """`NAME=VALUE` words as properties.

    Raises:
        InvalidRequest: One has no equals sign, or a name is there twice.
    """
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name in found:
            why = "is there twice" if equals else "has no equals sign"
            raise InvalidRequest(f"the property {word[:80]!r} {why}", hint="--property NAME=VALUE")
        found[name] = value
    return found

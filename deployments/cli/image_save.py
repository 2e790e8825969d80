"""`fifty image save`: an image as a file of this host."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from deployments.cli import output
from deployments.cli.context import Credentials, Json, request_of, require_root
from deployments.cli.detaching import Detach, send
from deployments.cli.flow_runs import run_flow
from deployments.cli.scope import open_scope

_MIB = 1024**2


def save(
    name: str,
    file: Path,
    /,
    *,
    format: Literal["raw", "qcow2"] | None = None,
    detach: Detach = False,
    credentials: Credentials = None,
    json: Json = False,
) -> None:
    """Save an image as a file of this host; for admins only. An encrypted one stays so.

    Args:
        name: The image: NAME, NAME:VERSION or its id.
        file: The file to make; there must be none yet.
        format: raw (sparse), or qcow2 (default: as it is in the catalogue, byte by byte).
    """
    target = file.absolute()
    request = request_of(credentials, name=name, file=str(target), format=format)
    if detach:
        send("save-image", request, json=json, look=f"ls -l {target}")
        return
    require_root("saving an image")
    image = open_scope(credentials).image(name)
    run_flow("save_image", {**request, "name": image.id}).require_success()
    status = target.stat()
    found = {
        "id": image.id,
        "name": image.reference,
        "file": str(target),
        "format": format or image.format.value,
        "size_bytes": status.st_size,
        "size_on_disk_bytes": status.st_blocks * 512,
        "virtual_size_bytes": image.virtual_size_bytes,
    }
    if json:
        output.document(found)
        return
    size = f"{status.st_size / _MIB:.1f} MiB, {status.st_blocks * 512 / _MIB:.1f} MiB on disk"
    shown = output.plain(f"{image.reference} is saved as {target}")
    output.say(f"The image {shown} ({found['format']}, {size}).")

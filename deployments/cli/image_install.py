"""`fifty image install`: an image from an installer's medium."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

from blocks.errors import InvalidRequest
from deployments.cli import image_views, output
from deployments.cli.context import Credentials, Flag, Json, Several, request_of, require_root
from deployments.cli.detaching import Detach, send
from deployments.cli.flow_runs import run_flow
from deployments.cli.scope import open_scope

_FILE_LIMIT = 256 * 1024


def install(
    name: str,
    medium: str,
    /,
    *,
    answers: Several = None,
    label: str | None = None,
    windows: str | None = None,
    disk: int | None = None,
    cpus: int | None = None,
    ram: int | None = None,
    firmware: Literal["bios", "uefi"] | None = None,
    no_virtio: Flag = False,
    timeout: int | None = None,
    login_user: str | None = None,
    detach: Detach = False,
    credentials: Credentials = None,
    json: Json = False,
) -> None:
    """Install an image from an installer's ISO file, unattended.

    Args:
        name: What the image is to be called.
        medium: The ISO file.
        answers: A file for a second medium, under its own name: user-data, ks.cfg.
        label: That medium's label: cidata (default; autoinstall), OEMDRV (kickstart).
        windows: For Windows: a TOML file with the answers, see README.
        disk: GiB of the disk (default: 10).
        cpus: Processors of the installer's machine (default: 2).
        ram: MiB of its memory (default: 2048).
        firmware: bios (default) or uefi; for Windows its answers say it.
        no_virtio: The installer does not know virtio: the image's VMs get SATA disks and an
            e1000e.
        timeout: Minutes that it may take (default: 180).
        login_user: Who one logs in as with the key (default: root; Windows: Administrator).
    """
    request = request_of(
        credentials,
        name=name,
        medium=str(Path(medium).absolute()),
        answers=[_answer(Path(file)) for file in answers or []] or None,
        answers_label=label,
        windows=_windows(Path(windows)) if windows is not None else None,
        disk_gib=disk,
        vcpus=cpus,
        ram_mib=ram,
        firmware=firmware,
        virtio=False if no_virtio else None,
        timeout_min=timeout,
        login_user=login_user,
    )
    if detach:
        send("install-image", request, json=json, look="fifty image list")
        return
    require_root("installing an image")
    if not json:
        output.note(f"Installing {output.plain(name)} from {output.plain(medium)}.")
    run_flow("install_image", request).require_success()
    image_views.tell(open_scope(credentials).image(name), json=json)


def _answer(file: Path) -> dict[str, str]:
    return {"path": file.name, "content": _text(file, "--answers")}


def _windows(file: Path) -> dict[str, Any]:
    """The answers for Windows; files in them are found from their own directory."""
    try:
        said = tomllib.loads(_text(file, "--windows"))
    except tomllib.TOMLDecodeError as error:
        raise InvalidRequest(f"--windows: {file} is not TOML: {error}") from error
    folder = file.absolute().parent
    programs = said.get("programs")
    if isinstance(said.get("virtio_win"), str):
        said["virtio_win"] = str(folder / said["virtio_win"])
    if isinstance(programs, dict):
        said["programs"] = {name: str(folder / str(path)) for name, path in programs.items()}
    return said


def _text(file: Path, option: str) -> str:
    try:
        with file.open("rb") as opened:
            content = opened.read(_FILE_LIMIT + 1)
    except OSError as error:
        raise InvalidRequest(f"{option}: {file}: {error.strerror}") from error
    if len(content) > _FILE_LIMIT:
        raise InvalidRequest(f"{option}: {file} is over the limit of {_FILE_LIMIT} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise InvalidRequest(f"{option}: {file} is not UTF-8 text") from None

"""An image's chain as a tree, for a terminal of any width."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from blocks.resources.image import image_reference
from blocks.settings import settings
from deployments.cli import output
from deployments.cli.image_chains import made

_MIB = 1024**2
#: Of a checksum so much is shown.
_SHORT = 12


def draw(image: Mapping[str, Any]) -> None:
    """Draw the tree: from the oldest ancestor to what was made from the image, and its files.

    Args:
        image: Its document, with its `chain`.
    """
    chain = image["chain"]
    reference = image_reference(image["name"], image["version"])
    line = [
        *chain["ancestors"],
        {"name": reference, "made": made(image), "status": image["status"]},
    ]
    root = node = Tree(_image(line[0], this=len(line) == 1))
    for one in line[1:]:
        node = node.add(_image(one, this=one is line[-1]))
    _derived(node, chain["derived"])
    _files(node, chain)
    # Not rich's own width of a pipe, which would cut lines that nobody sees.
    console = Console(file=sys.stdout, highlight=False, soft_wrap=not sys.stdout.isatty())
    console.print(root)


def _image(one: Mapping[str, Any], *, this: bool = False) -> Text:
    if one["name"] is None:
        return Text(f"an image that is not there any more, or not yours ({one['id']})", "dim")
    text = Text(output.plain(one["name"]), "bold" if this else "")
    if one["made"]:
        text.append(f"  {output.plain(one['made'])}", "not bold dim")
    if one["status"] != "active":
        text.append(f"  {one['status']}", "not bold yellow")
    return text


def _derived(node: Tree, images: Sequence[Mapping[str, Any]]) -> None:
    for one in images:
        _derived(node.add(_image(one)), one["derived"])


def _files(node: Tree, chain: Mapping[str, Any]) -> None:
    base = chain["base"]
    path = Path(base["path"])
    chained = [vm for vm in chain["vms"] if vm["disk_mode"] == "chained"]
    if base["size_on_disk_bytes"] is not None or chained:
        size = _size(base["size_on_disk_bytes"])
        name = f"cache/{path.stem[:_SHORT]}…{path.suffix}"
        branch = node.add(Text(f"base {name}  {size}"))
        for vm in chained:
            _vm(branch, vm)
    for vm in chain["vms"]:
        if vm["disk_mode"] != "chained":
            _vm(node, vm)


def _vm(node: Tree, vm: Mapping[str, Any]) -> None:
    where = "" if vm["files"] else f", {_where(vm['host'])}"
    mode = ", flat" if vm["disk_mode"] == "flat" else ""
    branch = node.add(Text(output.plain(f"VM {vm['name']}  {vm['status']}{mode}{where}")))
    _layers(branch, vm["files"])


def _where(host: str | None) -> str:
    """Why there is no disk of a VM to be seen."""
    if host in (None, settings().host):
        return "no disk"
    return f"its disk is on the host {host}"


def _layers(node: Tree, files: Sequence[Mapping[str, Any]]) -> None:
    for one in files:
        text = Text(f"{Path(one['path']).name}  {_size(one['size_on_disk_bytes'])}")
        if one["snapshot"]:
            text.append(output.plain(f"  snapshot {one['snapshot']}"), "cyan")
        _layers(node.add(text), one["above"])


def _size(size: int | None) -> str:
    return "not there" if size is None else f"{size / _MIB:.1f} MiB"

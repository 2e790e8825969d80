"""What an image was made from, what was made from it, and the files that lie on its base.

The files' own headers are read, so this is what there is on this host, and not what was planned.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from blocks.backing_files import backing_file
from blocks.resources import Image, Instance
from blocks.settings import settings
from blocks.state import StateStore
from deployments.cli.scope import Scope

_BLOCK = 512


def chain(scope: Scope, image: Image) -> dict[str, Any]:
    """An image's ancestry, and the chains of files on this host.

    Returns:
        `ancestors`, the oldest first; `derived`, each with its own `derived`; `base`, the copy
        in this host's cache; `vms` that were made from the image, each with its `files` (every
        one with those that are `above` it).
    """
    only = None if scope.is_admin else scope.caller.tenant_id
    known = {one.id: one for one in scope.store.images.list(only)}
    return {
        "ancestors": _ancestors(image, known),
        "derived": _derived(image.id, known),
        "base": _base(image),
        "vms": [
            _vm(scope.store, instance)
            for instance in scope.store.instances.list(only)
            if instance.image_id == image.id
        ],
    }


def _ancestors(image: Image, known: Mapping[str, Image]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    parent_id = image.parent_id
    while parent_id is not None and parent_id not in {one["id"] for one in found}:
        parent = known.get(parent_id)
        if parent is None:
            # Deleted, or not the caller's to see.
            found.append({"id": parent_id, "name": None, "made": None, "status": None})
            break
        found.append(_words(parent))
        parent_id = parent.parent_id
    return found[::-1]


def _derived(
    image_id: str, known: Mapping[str, Image], above: frozenset[str] = frozenset()
) -> list[dict[str, Any]]:
    return [
        {**_words(one), "derived": _derived(one.id, known, above | {image_id})}
        for one in known.values()
        if one.parent_id == image_id and one.id not in above
    ]


def _words(image: Image) -> dict[str, Any]:
    return {
        "id": image.id,
        "name": image.reference,
        "made": made(image.model_dump(mode="json")),
        "status": image.status,
    }


def made(image: Mapping[str, Any]) -> str:
    """How an image came to be, in words."""
    if image["source"]:
        return str(image["source"])
    if image["recipe"]:
        return f"recipe {image['recipe']}"
    return "edit" if image["parent_id"] else ""


def _base(image: Image) -> dict[str, Any]:
    # As `BaseCache` has it, whose package takes too long to import for this.
    path = settings().home / "images" / "cache" / f"{image.sha256}.{image.format}"
    return {"path": str(path), "size_on_disk_bytes": _size_on_disk(path)}


def _vm(store: StateStore, instance: Instance) -> dict[str, Any]:
    names = {
        snapshot.frozen: snapshot.name
        for snapshot in store.snapshots.of(instance.id)
        if snapshot.frozen is not None
    }
    directory = settings().instances / instance.id
    below = {path: _below(path) for path in sorted(directory.glob("disk*.qcow2"))}
    return {
        "id": instance.id,
        "name": instance.name,
        "status": instance.status.value,
        "host": instance.host,
        "disk_mode": instance.flavor.disk_mode.value,
        "files": _files([path for path in below if below[path] not in below], below, names),
    }


def _files(
    paths: Iterable[Path], below: Mapping[Path, Path | None], names: Mapping[str, str]
) -> list[dict[str, Any]]:
    above = defaultdict(list)
    for path, base in below.items():
        above[base].append(path)

    def describe(path: Path, under: Sequence[Path]) -> dict[str, Any]:
        base = below[path]
        return {
            "path": str(path),
            "backing_file": str(base) if base else None,
            "size_on_disk_bytes": _size_on_disk(path),
            "snapshot": names.get(path.name),
            "above": [
                describe(one, [*under, path]) for one in above[path] if one not in (*under, path)
            ],
        }

    return [describe(path, []) for path in paths]


def _below(path: Path) -> Path | None:
    try:
        return backing_file(path)
    except FileNotFoundError:
        return None  # merged since it was listed


def _size_on_disk(path: Path) -> int | None:
    try:
        return path.stat().st_blocks * _BLOCK
    except FileNotFoundError:
        return None

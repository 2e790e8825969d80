"""cloud-init inside an image: which version, which modules run in which stage, its schema.

Read from the image's files without running any of it, the way cloud-init itself would
(`cloudinit.util.read_conf_with_confd`, `cloudinit.config.modules`). All of it is the image's
own word: bounded, and told, not trusted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict

from blocks.errors import UnsafeImage
from blocks.user_data.bounded_yaml import NotReadable, load
from blocks.user_data.kinds import Kind, kind_of
from blocks.user_data.schema import SCHEMA_LIMIT

#: The stages and the lists that say what runs in them, in the order of a boot.
STAGES = {
    "init": "cloud_init_modules",
    "config": "cloud_config_modules",
    "final": "cloud_final_modules",
}
_CONFIG = "/etc/cloud/cloud.cfg"
_SWITCHED_OFF = "/etc/cloud/cloud-init.disabled"
_PYTHON = re.compile(r"python3(\.[0-9]+)?")
_VERSION = re.compile(r"""^__VERSION__ = ["']([0-9][^"'\n]{0,40})["']""", re.MULTILINE)
_PACKAGED = re.compile(r"""^_PACKAGED_VERSION = ["']([0-9][^"'\n]{0,60})["']""", re.MULTILINE)
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_MOST_MODULES = 200


class GuestFiles(Protocol):
    """What is asked of a way into an image's files; see `blocks.images.access`."""

    def text(self, path: str) -> str | None:
        """A file's text; None where there is none."""

    def names(self, path: str, suffix: str = "") -> Sequence[str]:
        """The names in a directory that end so."""

    def exists(self, path: str) -> bool:
        """Whether anything is there."""


class Module(BaseModel):
    """A module that a stage runs.

    Attributes:
        name: As it is listed.
        frequency: How often, where the list says so; else the module's own way.
        there: Whether this cloud-init has it: what it has not, it passes over.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    frequency: str | None = None
    there: bool = True


class CloudInit(BaseModel):
    """An image's cloud-init.

    Attributes:
        version: The package's version, or its own; `unknown` where it does not say.
        enabled: It is not switched off by its file in /etc/cloud.
        datasources: Where it looks for what it is to do, in order; empty: everywhere.
        stages: What runs in each stage, in order; user and vendor data may change it.
        default_user: Who gets the key.
        schema_sha256: The checksum of its schema for cloud-configs, where it has one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    enabled: bool
    datasources: tuple[str, ...]
    stages: Mapping[str, tuple[Module, ...]]
    default_user: str | None = None
    schema_sha256: str | None = None


class TreeFiles:
    """The files of a directory that will be an image's root; links lead nowhere else.

    Args:
        tree: The directory.
    """

    def __init__(self, tree: Path) -> None:
        self._tree = tree.resolve()

    def text(self, path: str) -> str | None:
        """A file's text; None where there is none."""
        found = self._inside(path)
        return found.read_text("utf-8", "replace") if found and found.is_file() else None

    def names(self, path: str, suffix: str = "") -> list[str]:
        """The names in a directory that end so, sorted."""
        found = self._inside(path)
        if found is None or not found.is_dir():
            return []
        return sorted(one.name for one in found.iterdir() if one.name.endswith(suffix))

    def exists(self, path: str) -> bool:
        """Whether anything is there."""
        found = self._inside(path)
        return found is not None and found.exists()

    def _inside(self, path: str) -> Path | None:
        found = (self._tree / path.lstrip("/")).resolve()
        return found if found.is_relative_to(self._tree) else None


def look(files: GuestFiles) -> tuple[CloudInit, str | None] | None:
    """An image's cloud-init and the text of its schema; None where it has no cloud-init.

    Raises:
        UnsafeImage: A file of it is out of all proportion.
    """
    package = _package(files)
    if package is None:
        return None
    config = _configuration(files)
    there = {name.removesuffix(".py") for name in files.names(f"{package}/config", ".py")}
    schema = files.text(f"{package}/config/schemas/schema-cloud-config-v1.json")
    if schema is not None and len(schema) > SCHEMA_LIMIT:
        raise UnsafeImage(f"the image's cloud-config schema is over {SCHEMA_LIMIT} bytes")
    version = files.text(f"{package}/version.py") or ""
    said = _PACKAGED.search(version) or _VERSION.search(version)
    return CloudInit(
        version=said[1] if said else "unknown",
        enabled=not files.exists(_SWITCHED_OFF),
        datasources=tuple(_texts(config.get("datasource_list"))),
        stages={stage: _modules(config.get(key), there) for stage, key in STAGES.items()},
        default_user=_default_user(config),
    ), schema


def _package(files: GuestFiles) -> str | None:
    """The directory of cloud-init's Python package."""
    for root in ("/usr/lib", "/usr/local/lib", "/usr/lib64"):
        for name in files.names(root):
            for packages in ("dist-packages", "site-packages"):
                path = f"{root}/{name}/{packages}/cloudinit"
                if _PYTHON.fullmatch(name) and files.exists(f"{path}/version.py"):
                    return path
    return None


def _configuration(files: GuestFiles) -> dict[str, Any]:
    """cloud.cfg with what cloud.cfg.d adds: of what is said twice, the last file's word holds."""
    main = _read(files, _CONFIG)
    folder = main.get("conf_d", f"{_CONFIG}.d")
    found: list[dict[str, Any]] = []
    if isinstance(folder, str) and folder.startswith("/"):
        names = sorted(files.names(folder, ".cfg"), reverse=True)
        found = [_read(files, f"{folder}/{name}") for name in names[:_MOST_MODULES]]
    merged: dict[str, Any] = {}
    for each in (*found, main):
        _add(merged, each)
    return merged


def _add(merged: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Add what is not there yet, mappings key by key: cloud-init's own way of merging."""
    for key, value in more.items():
        there = merged.get(key)
        if key not in merged:
            merged[key] = dict(value) if isinstance(value, dict) else value
        elif isinstance(there, dict) and isinstance(value, dict):
            _add(there, value)


def _read(files: GuestFiles, path: str) -> dict[str, Any]:
    """One file of the configuration; nothing where cloud-init could not read it either."""
    text = files.text(path)
    # Files of the configuration can be templates; what they make is known in the guest only.
    if text is None or kind_of(text) is Kind.JINJA:
        return {}
    try:
        said = load(text)
    except NotReadable:
        return {}
    return said if isinstance(said, dict) else {}


def _modules(listed: object, there: set[str]) -> tuple[Module, ...]:
    found = []
    for entry in listed if isinstance(listed, list) else ():
        name, frequency = entry, None
        if isinstance(entry, list) and entry:
            name, frequency = entry[0], entry[1] if len(entry) > 1 else None
        elif isinstance(entry, dict):
            name, frequency = entry.get("name"), entry.get("frequency")
        if isinstance(name, str) and _NAME.fullmatch(name.strip()):
            file = "cc_" + name.strip().replace("-", "_").removeprefix("cc_")
            often = frequency if isinstance(frequency, str) else None
            found.append(Module(name=name.strip(), frequency=often, there=file in there))
    return tuple(found[:_MOST_MODULES])


def _texts(listed: object) -> list[str]:
    entries = listed if isinstance(listed, list) else ()
    return [one for one in map(str, entries) if _NAME.fullmatch(one)][:_MOST_MODULES]


def _default_user(config: Mapping[str, Any]) -> str | None:
    system = config.get("system_info")
    user = system.get("default_user") if isinstance(system, dict) else None
    name = user.get("name") if isinstance(user, dict) else None
    return name if isinstance(name, str) and _NAME.fullmatch(name) else None

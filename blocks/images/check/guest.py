"""A guest's files as the points of the check ask for them: units, kernels, cloud-init's words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import yaml

from blocks.errors import FiftyError
from blocks.images.access.base import Access
from blocks.images.check.firmware import Firmware
from blocks.images.partitions import Partition

_UNIT_FOLDERS = ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
_LONGEST_YAML = 256 * 1024
_MOST_FILES = 500
_GRUB_CONFIGS = ("/boot/grub/grub.cfg", "/boot/grub2/grub.cfg", "/boot/efi/EFI/debian/grub.cfg")
_EXTLINUX_CONFIGS = (
    "/boot/extlinux/extlinux.conf",
    "/extlinux/extlinux.conf",
    "/extlinux.conf",
    "/boot/syslinux/syslinux.cfg",
)
_GRUB_FOLDERS = ("/boot/grub2", "/boot/grub")
_BLS_FOLDER = "/boot/loader/entries"
_MICRO = ("/lib/micro/config-drive.awk", "/sbin/micro-init")


class _WithoutMerging(yaml.SafeLoader):
    """YAML without merge keys: they can be made to explode."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _value in node.value):
            raise yaml.YAMLError("merge keys are not followed")


def read_yaml(text: str) -> Any:  # noqa: ANN401 - whatever the file says
    """What a YAML text says; None where nobody can read it."""
    if len(text) > _LONGEST_YAML:
        return None
    try:
        return yaml.load(text, Loader=_WithoutMerging)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError):
        return None


class Guest:
    """A guest that does not run.

    Args:
        access: Its files.
        firmware: What will start it.
    """

    def __init__(self, access: Access, firmware: Firmware) -> None:
        self.access = access
        self.firmware = firmware
        self.map = access.map

    @property
    def root_partition(self) -> Partition:
        """The partition that holds the root file system."""
        root = self.access.mounts["/"]
        return next(one for one in self.map.partitions if one.holds == root)

    @cached_property
    def is_micro(self) -> bool:
        """Whether it is made by the recipe `micro`, whose own init does what cloud-init does."""
        return all(self.access.exists(path) for path in _MICRO)

    # Patterns over these stay in one line: one that takes line ends for blanks would look at all
    # that follows from each of them, and a megabyte of line ends would keep it busy for hours.

    def texts(self, folder: str, *suffixes: str) -> Iterator[tuple[str, str]]:
        """The paths and texts of a directory's files that end so."""
        names = [name for name in self.access.names(folder) if name.endswith(suffixes)]
        # No honest directory of configuration files has more.
        for name in names[:_MOST_FILES]:
            try:
                text = self.access.text(f"{folder}/{name}")
            except FiftyError:
                continue
            if text is not None:
                yield f"{folder}/{name}", text

    # systemd

    def unit_enabled(self, unit: str) -> str | None:
        """The link by which a unit is wanted by another at boot; None where it is not."""
        if self.unit_masked(unit):
            return None
        for folder in _UNIT_FOLDERS:
            for name in self.access.names(folder):
                wanting = f"{folder}/{name}/{unit}"
                if (
                    name.endswith((".wants", ".requires"))
                    and self.access.find(wanting, follow=False) is not None
                ):
                    return wanting
        return None

    def unit_masked(self, unit: str) -> bool:
        """Whether a unit is switched off for good."""
        path = f"/etc/systemd/system/{unit}"
        node = self.access.find(path, follow=False)
        return node is not None and node.is_link and self.access.link(path) == "/dev/null"

    # kernels and their command lines

    @cached_property
    def kernels(self) -> list[str]:
        """The paths of the kernels in /boot."""
        return [f"/boot/{name}" for name in self.access.names("/boot") if name.startswith("vmlinu")]

    @cached_property
    def boot_configs(self) -> list[tuple[str, str]]:
        """The boot loaders' configurations: paths and texts."""
        found = []
        for path in (*_EXTLINUX_CONFIGS, *_GRUB_CONFIGS):
            text = self.access.text(path)
            if text is not None:
                found.append((path, text))
        return [*found, *self.texts(_BLS_FOLDER, ".conf")]

    @cached_property
    def command_lines(self) -> list[tuple[str, str]]:
        """The kernels' command lines: where they stand, and what they say."""
        found = []
        environment = "".join(self.access.text(f"{one}/grubenv") or "" for one in _GRUB_FOLDERS)
        options = re.search(r"^kernelopts=(.*)$", environment, re.MULTILINE)
        for path, text in self.boot_configs:
            pattern = (
                r"^[ \t]*(?:linux(?:16|efi)?[ \t]+\S+)[ \t]+(.*)$"
                if "grub" in path
                else r"(?i)^[ \t]*(?:append|options)[ \t]+(.*)$"
            )
            for line in re.findall(pattern, text, re.MULTILINE):
                said = line.replace("$kernelopts", options[1] if options else "")
                found.append((path, said.strip()))
        return found

    # cloud-init

    @cached_property
    def cloud_config(self) -> dict[str, Any]:
        """cloud.cfg and what is laid over it; lists and values of later files win."""
        merged: dict[str, Any] = {}
        for path, text in self.cloud_files:
            said = read_yaml(text)
            if isinstance(said, dict):
                merged |= said
            elif said is not None or text.strip():
                self.unreadable_cloud_files.append(path)
        return merged

    @cached_property
    def cloud_files(self) -> list[tuple[str, str]]:
        """cloud-init's configuration files, in the order in which they are read."""
        first = self.access.text("/etc/cloud/cloud.cfg")
        found = [("/etc/cloud/cloud.cfg", first)] if first is not None else []
        return [*found, *self.texts("/etc/cloud/cloud.cfg.d", ".cfg")]

    @cached_property
    def unreadable_cloud_files(self) -> list[str]:
        """Those of them that are no YAML (filled when `cloud_config` is read)."""
        return []

    def cloud_modules(self, stage: str) -> list[str]:
        """The modules of a stage (`init`, `config`, `final`), with `-` for `_`."""
        said = self.cloud_config.get(f"cloud_{stage}_modules")
        listed = said if isinstance(said, list) else []
        names = [one[0] if isinstance(one, list) and one else one for one in listed]
        return [name.replace("_", "-") for name in names if isinstance(name, str)]

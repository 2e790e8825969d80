"""Small disks with real file systems, made without booting or mounting anything."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MIB = 1024 * 1024
_PATH = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}


def run(*words: str | Path, stdin: str = "") -> str:
    done = subprocess.run(
        words, input=stdin, capture_output=True, text=True, check=False, env=_PATH
    )
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


@dataclass(frozen=True)
class Link:
    """A symbolic link, where a tree's file would have its content."""

    target: str


#: Paths without a leading slash; a text, bytes, a link, or None for a directory.
Tree = Mapping[str, str | bytes | Link | None]


@dataclass(frozen=True)
class Part:
    """A partition of a disk that is made.

    Attributes:
        type: For sfdisk.
        tree: What its file system holds; None leaves it empty of any.
        kind: `ext4`, `ext2`, `btrfs`, `vfat`, `swap`, or `raw:` and the content's beginning.
        options: More words for mke2fs.
        line: More fields of sfdisk's line.
    """

    tree: Tree | None = None
    type: str = "L"
    size_mib: int = 16
    kind: str = "ext4"
    label: str = ""
    uuid: str = ""
    options: Sequence[str] = ()
    line: str = ""
    modes: Mapping[str, int] = field(default_factory=dict)


def make_tree(folder: Path, tree: Tree, modes: Mapping[str, int] | None = None) -> Path:
    folder.mkdir(parents=True)
    for name, content in tree.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir(exist_ok=True)
        elif isinstance(content, Link):
            path.symlink_to(content.target)
        elif isinstance(content, str):
            path.write_text(content)
        else:
            path.write_bytes(content)
    for name, mode in (modes or {}).items():
        (folder / name).chmod(mode)
    return folder


def make_disk(
    path: Path, parts: Sequence[Part], table: str = "dos", boot_code: bytes = b""
) -> Path:
    """A raw disk; `table` is `dos`, `gpt` or `none` (one file system on the whole disk)."""
    size = 2 + sum(part.size_mib for part in parts)
    path.touch()
    os.truncate(path, size * MIB)
    offsets = []
    if table == "none":
        offsets = [0]
    else:
        at, lines = 1, [f"label: {table}"]
        for part in parts:
            offsets.append(at * MIB)
            lines.append(
                f"start={at * 2048}, size={part.size_mib * 2048}, type={part.type}{part.line}"
            )
            at += part.size_mib
        run("sfdisk", "-q", "--no-reread", "--no-tell-kernel", path, stdin="\n".join(lines) + "\n")
    for number, (part, offset) in enumerate(zip(parts, offsets, strict=True)):
        _fill(path, part, offset, path.with_name(f"{path.name}.tree{number}"))
    if boot_code:
        with path.open("r+b") as file:
            file.write(boot_code)
    return path


def _fill(path: Path, part: Part, offset: int, folder: Path) -> None:
    if part.kind.startswith("ext"):
        words: list[str | Path] = ["mke2fs", "-q", "-F", "-t", part.kind, "-L", part.label]
        words += ["-U", part.uuid] if part.uuid else []
        words += [*part.options, "-E", f"offset={offset},root_owner=0:0"]
        words += ["-d", make_tree(folder, part.tree or {}, part.modes)]
        run(*words, path, f"{part.size_mib}M")
    elif part.kind == "btrfs":
        lone = path.with_name(f"{path.name}.btrfs")
        lone.touch()
        os.truncate(lone, part.size_mib * MIB)
        made = make_tree(folder, part.tree or {}, part.modes)
        run("mkfs.btrfs", "-q", "-L", part.label, "--rootdir", made, lone)
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(lone.read_bytes())
    elif part.kind == "vfat":
        drive = ("-i", f"{path}@@{offset}")
        run("mformat", *drive, "-T", str(part.size_mib * MIB // 512), "-v", part.label, "::")
        made = make_tree(folder, part.tree or {})
        run("mcopy", "-s", *drive, *made.iterdir(), "::")
    elif part.kind == "swap":
        lone = path.with_name(f"{path.name}.swap")
        lone.touch()
        os.truncate(lone, part.size_mib * MIB)
        run("mkswap", "-q", *(("-U", part.uuid) if part.uuid else ()), lone)
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(lone.read_bytes()[: 64 * 1024])
    elif part.kind.startswith("raw:"):
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(part.kind.removeprefix("raw:").encode("latin-1"))

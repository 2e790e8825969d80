"""This host's bases: which of them are kept, by use, age and size."""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from pathlib import Path

from blocks.images import ImageStore
from blocks.images.cache import BaseCache, Idle, Needed
from blocks.resources import Image, ImageFormat

MIB = 1 << 20
DAY_S = 24 * 3600


def base(directory: Path, name: str, days: float) -> str:
    """A base of a mebibyte whose last use is so long ago; its checksum."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    path = directory / f"{digest}.qcow2"
    path.write_bytes(os.urandom(MIB))
    then = time.time() - days * DAY_S
    os.utime(path, (then, then))
    return digest


def left(directory: Path, names: dict[str, str]) -> set[str]:
    return {name for name, digest in names.items() if (directory / f"{digest}.qcow2").exists()}


def test_by_use_and_age(tmp_path: Path) -> None:
    ages = {"used": 400.0, "offered": 29.0, "offered long ago": 31.0, "nobody's": 0.0}
    names = {name: base(tmp_path, name, days) for name, days in ages.items()}
    needed = Needed(
        used=frozenset({names["used"]}),
        offered=frozenset({names["used"], names["offered"], names["offered long ago"]}),
    )
    freed = BaseCache(tmp_path).remove_others(lambda: needed, Idle(30 * DAY_S, 100 * MIB))
    assert left(tmp_path, names) == {"used", "offered"}
    assert sorted(freed.values()) == [MIB, MIB]


def test_by_size_those_go_whose_last_use_is_longest_ago(tmp_path: Path) -> None:
    names = {str(days): base(tmp_path, str(days), days) for days in range(5)}
    names["used"] = base(tmp_path, "used", 9)
    needed = Needed(used=frozenset({names["used"]}), offered=frozenset(names.values()))
    BaseCache(tmp_path).remove_others(lambda: needed, Idle(30 * DAY_S, 2.5 * MIB))
    assert left(tmp_path, names) == {"0", "1", "used"}


def test_a_fetch_is_a_use(tmp_path: Path) -> None:
    digest = base(tmp_path, "image", 100)
    image = Image(
        id="i",
        tenant_id=None,
        name="image",
        format=ImageFormat.QCOW2,
        sha256=digest,
        size_bytes=MIB,
        virtual_size_bytes=MIB,
        path="/nowhere",
    )
    cache = BaseCache(tmp_path)
    cache.fetch(image, lambda _done, _total: None)
    needed = Needed(frozenset(), frozenset({digest}))
    assert cache.remove_others(lambda: needed, Idle(DAY_S, 100 * MIB)) == {}


def test_what_the_catalogue_has_is_in_the_inventory_in_either_format(tmp_path: Path) -> None:
    folder = tmp_path / "images" / "store"
    folder.mkdir(parents=True)
    names = [f"{uuid.uuid4()}.{form}" for form in ImageFormat]
    for name in (*names, "no-image.raw"):
        (folder / name).touch()
    store = ImageStore(tmp_path / "images")
    assert {Path(found.name).name for found in store.inventory()} == set(names)
    for found in store.inventory():
        store.remove(found)
    assert [path.name for path in folder.iterdir()] == ["no-image.raw"]

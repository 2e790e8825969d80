"""`fifty image show`: what an image was made from, what was made from it, and what lies on it."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from blocks.backing_files import backing_file
from blocks.resources import DiskMode, Image, Instance, Snapshot
from blocks.settings import settings
from blocks.state.tables.base import now
from deployments.cli.app import run
from tests.unit.cli_store import Filled

SHA = "0" * 64


@pytest.fixture(name="filled")
def _filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Filled]:
    monkeypatch.setenv("FIFTY_HOME", str(tmp_path))
    monkeypatch.setenv("FIFTY_HOST", "here")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    monkeypatch.setenv("COLUMNS", "80")
    settings.cache_clear()
    filled = Filled(tmp_path)
    yield filled
    filled.store.database.dispose()
    settings.cache_clear()


def qcow2(path: Path, on: Path | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    base = ("-b", on, "-F", "qcow2") if on else ()
    words = ("qemu-img", "create", "-q", "-f", "qcow2", *base, path, "1M")
    subprocess.run(words, check=True)
    return path


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> Any:  # noqa: ANN401
    capsys.readouterr()
    assert run(["image", "show", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def drawn(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The tree, which comes after an empty line."""
    capsys.readouterr()
    assert run(["image", "show", *words]) == 0
    return capsys.readouterr().out.partition("\n\n")[2]


def derived(filled: Filled, name: str, parent: str, **fields: Any) -> Image:  # noqa: ANN401
    changed = {"id": str(uuid.uuid4()), "name": name, "parent_id": parent, "sha256": "1" * 64}
    image = filled.image.model_copy(update={**changed, **fields})
    filled.store.images.put(image)
    return image


def flat(filled: Filled, instance: Instance) -> None:
    flavor = instance.flavor.model_copy(update={"disk_mode": DiskMode.FLAT})
    filled.store.instances.record(instance.model_copy(update={"flavor": flavor}))


def test_the_header_says_what_a_file_is_on(tmp_path: Path) -> None:
    base = qcow2(tmp_path / "a base, with $igns äöü")
    assert backing_file(qcow2(tmp_path / "on", base)) == base
    assert backing_file(base) is None
    for content in (b"", b"QFI\xfb", b"no qcow2 at all, and some more of it"):
        (tmp_path / "other").write_bytes(content)
        assert backing_file(tmp_path / "other") is None
    with pytest.raises(FileNotFoundError):
        backing_file(tmp_path / "none")


def test_files_and_vms_on_a_base(filled: Filled, capsys: pytest.CaptureFixture[str]) -> None:
    base = qcow2(filled.home / "images" / "cache" / f"{SHA}.qcow2")
    web, copy, away = (
        filled.add_vm(name, address=f"10.0.0.{n}")
        for n, name in enumerate(("web", "copy", "away"), 7)
    )
    directory = filled.home / "instances" / web.id
    disk = qcow2(directory / "disk.qcow2", base)
    taken = str(uuid.uuid4())
    layer = qcow2(directory / f"disk-{taken}.qcow2", disk)
    (directory / "disk.qcow2.part").touch()
    filled.store.snapshots.record(
        Snapshot(
            id=taken,
            tenant_id=filled.tenant,
            instance_id=web.id,
            name="before",
            kind="external",
            frozen=disk.name,
            created_at=now(),
        )
    )
    flat(filled, copy)
    alone = qcow2(filled.home / "instances" / copy.id / "disk.qcow2")
    filled.store.instances.record(away.model_copy(update={"host": "there"}))

    chain = shown(capsys, "micro")["chain"]
    assert (chain["ancestors"], chain["derived"]) == ([], [])
    size = base.stat().st_blocks * 512
    assert chain["base"] == {"path": str(base), "size_on_disk_bytes": size}
    vms = {vm["name"]: vm for vm in chain["vms"]}
    [lowest] = vms["web"]["files"]
    assert (lowest["path"], lowest["backing_file"]) == (str(disk), str(base))
    assert lowest["snapshot"] == "before"
    [upper] = lowest["above"]
    assert (upper["path"], upper["backing_file"]) == (str(layer), str(disk))
    assert (upper["snapshot"], upper["above"]) == (None, [])
    [own] = vms["copy"]["files"]
    assert (own["path"], own["backing_file"]) == (str(alone), None)
    assert (vms["copy"]["disk_mode"], vms["away"]["files"]) == ("flat", [])

    lines = drawn(capsys, "micro").splitlines()
    assert lines[0] == "micro"
    sizes = {path: f"{path.stat().st_blocks * 512 / 2**20:.1f} MiB" for path in (base, disk)}
    assert lines[1:] == [
        f"├── base cache/000000000000….qcow2  {sizes[base]}",
        "│   ├── VM away  ACTIVE, its disk is on the host there",
        "│   └── VM web  ACTIVE",
        f"│       └── disk.qcow2  {sizes[disk]}  snapshot before",
        f"│           └── {layer.name}  {sizes[disk]}",
        "└── VM copy  ACTIVE, flat",
        f"    └── disk.qcow2  {sizes[base]}",
    ]


def test_ancestors_and_what_was_derived(filled: Filled, capsys: pytest.CaptureFixture[str]) -> None:
    edited = derived(filled, "edited", filled.image.id)
    caught = derived(filled, "caught", edited.id, version="2", source="capture of the VM \x1b[1m")
    derived(filled, "last", caught.id, status="deactivated")
    derived(filled, "side", filled.image.id)
    chain = shown(capsys, "caught:2")["chain"]
    assert [one["name"] for one in chain["ancestors"]] == ["micro", "edited"]
    assert [one["name"] for one in chain["derived"]] == ["last"]
    assert drawn(capsys, "caught:2").splitlines() == [
        "micro",
        "└── edited  edit",
        r"    └── caught:2  capture of the VM \x1b[1m",
        "        └── last  edit  deactivated",
    ]
    assert [line.strip("├└│─ ") for line in drawn(capsys, "micro").splitlines()] == [
        *("micro", "edited  edit", r"caught:2  capture of the VM \x1b[1m"),
        *("last  edit  deactivated", "side  edit"),
    ]
    # One that is gone is said to be.
    filled.store.images.delete(filled.image.id)
    assert shown(capsys, "edited")["chain"]["ancestors"][0]["name"] is None
    assert "not there any more" in drawn(capsys, "edited").splitlines()[0]


def test_another_tenants_are_not_seen(filled: Filled, capsys: pytest.CaptureFixture[str]) -> None:
    filled.store.images.change(filled.image.id, visibility="public")
    filled.add_tenant("others", "member")
    derived(filled, "secret", filled.image.id)
    mine = derived(filled, "shown", filled.image.id, visibility="public")
    filled.store.images.change(filled.image.id, visibility="private")
    filled.add_vm("hidden")
    member = ("--credentials", "others")
    assert "hidden" not in drawn(capsys, "shown", *member)
    [unseen] = shown(capsys, mine.id, *member)["chain"]["ancestors"]
    assert (unseen["id"], unseen["name"]) == (filled.image.id, None)
    filled.store.images.change(filled.image.id, visibility="public")
    chain = shown(capsys, "micro", *member)["chain"]
    assert ([one["name"] for one in chain["derived"]], chain["vms"]) == (["shown"], [])

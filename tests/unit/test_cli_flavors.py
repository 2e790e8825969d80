"""`fifty flavor`: made, looked at and deleted by an admin; VMs keep what they were made with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from blocks.resources import DiskMode, Flavor, FlavorLimits
from blocks.settings import settings
from deployments.cli.app import run
from tests.unit.cli_store import Filled

CREATE = ("flavor", "create", "big", "--vcpus", "2", "--ram", "1024", "--disk", "8")


@pytest.fixture(name="filled")
def _filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Filled]:
    monkeypatch.setenv("FIFTY_HOME", str(tmp_path))
    monkeypatch.setenv("FIFTY_HOST", "here")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    settings.cache_clear()
    filled = Filled(tmp_path)
    yield filled
    filled.store.database.dispose()
    settings.cache_clear()


def told(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> Any:  # noqa: ANN401
    capsys.readouterr()
    assert run([*words, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    capsys.readouterr()
    assert run(words) == code
    both = capsys.readouterr()
    return both.out + both.err


def test_a_flavor_is_made_listed_shown_and_deleted(
    filled: Filled, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = Flavor(
        name="big",
        vcpus=2,
        ram_mib=1024,
        disk_gib=8,
        disk_mode=DiskMode.FLAT,
        limits=FlavorLimits(cpu_shares=512, net_kib_s=100),
    )
    options = ("--disk-mode", "flat", "--cpu-shares", "512", "--net-kib-s", "100")
    for _ in range(2):  # the same again is fine
        assert told(capsys, *CREATE, *options) == wanted.model_dump(mode="json")
    assert filled.store.flavors.get("big") == wanted
    assert told(capsys, "flavor", "show", "big") == wanted.model_dump(mode="json")
    assert [one["name"] for one in told(capsys, "flavor", "list")] == [
        *("tiny", "small", "big", "medium")
    ]
    lines = said(capsys, "flavor", "list").splitlines()
    assert lines[0].split() == ["NAME", "VCPUS", "MEMORY", "DISK", "DISK", "MODE", "LIMITS"]
    assert "big     2      1024 MiB  8 GiB   flat       cpu shares 512, net KiB/s 100" in lines
    assert "8 GiB, flat" in said(capsys, "flavor", "show", "big")

    instance = filled.add_vm("vm")
    filled.store.instances.record(instance.model_copy(update={"flavor": wanted}))
    assert told(capsys, "flavor", "delete", "big") == {"name": "big", "deleted": True}
    assert "there is no flavor 'big'; there are: medium, small, tiny" in said(
        capsys, "flavor", "delete", "big", code=1
    )
    shown = told(capsys, "vm", "show", "vm")
    assert (shown["flavor"], shown["disk_gib"], shown["disk_mode"]) == ("big", 8, "flat")
    assert "big (2 vcpu, 1024 MiB, 8 GiB flat)" in said(capsys, "vm", "show", "vm")


def test_what_is_wrong_is_told_at_once_and_nothing_is_made(
    filled: Filled, capsys: pytest.CaptureFixture[str]
) -> None:
    before = filled.store.flavors.list()
    wrong = told(
        capsys,
        *("flavor", "create", "bad-", "--vcpus", "0", "--ram", "1", "--disk", "0"),
        *("--cpu-percent", "200"),
        code=1,
    )
    assert wrong["error"] == "InvalidRequest"
    assert [line.partition(":")[0] for line in wrong["details"]] == [
        *("name", "vcpus", "ram_mib", "disk_gib", "limits.cpu_percent")
    ]
    other = told(
        capsys, "flavor", "create", "tiny", "--vcpus", "1", "--ram", "64", "--disk", "1", code=1
    )
    assert other["error"] == "Conflict"
    assert "fifty flavor delete tiny" in other["hint"]
    assert run([*CREATE, "--disk-mode", "round"]) == 2
    assert run(CREATE[:-2]) == 2
    assert filled.store.flavors.list() == before


def test_only_an_admin_makes_and_deletes(
    filled: Filled, capsys: pytest.CaptureFixture[str]
) -> None:
    filled.add_tenant("others", "member")
    member = ("--credentials", "others")
    assert told(capsys, *CREATE, *member, code=1)["error"] == "Denied"
    assert told(capsys, "flavor", "delete", "tiny", *member, code=1)["error"] == "Denied"
    assert {one["name"] for one in told(capsys, "flavor", "list", *member)} == {
        *("tiny", "small", "medium")
    }
    assert told(capsys, "flavor", "show", "tiny", *member)["vcpus"] == 1

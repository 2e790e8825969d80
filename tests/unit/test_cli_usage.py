"""Command lines that are wrong: refused in one answer, with the right code, never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.settings import settings
from blocks.state import StateStore
from deployments import defaults
from deployments.cli.app import run

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(name="home", autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home with a state store, and no Prefect server that could answer."""
    home = tmp_path / "home"
    monkeypatch.setenv("FIFTY_HOME", str(home))
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    settings.cache_clear()
    store = StateStore(home / "state.db", "here")
    store.initialize()
    tenant = store.tenants.create(defaults.TENANT)
    store.tenants.note_credentials(store.tenants.issue_token(tenant, "admin"), "default")
    store.database.dispose()
    yield home
    settings.cache_clear()


WRONG_USAGE = [
    "frobnicate",
    "--frobnicate",
    "vm frobnicate",
    "vm list --frobnicate",
    "vm list extra",
    "vm list --jso",
    "vm show",
    "vm show a b",
    "vm steps",
    "vm steps a --generation x",
    "vm create",
    "vm create a",
    "vm create a --image i",
    "vm create a --network n",
    "vm create --image i --network n",
    "vm create a --image i --network n --on-failure explode",
    "vm create a --image i --image j --network n",
    "vm create a --image --network n",
    "vm create a --image i --network",
    "vm create a b --image i --network n",
    "vm create a --image i --network n --floating=perhaps",
    "vm ssh",
    "vm ssh a -l root",
    "vm console",
    "vm delete",
    "vm rollback a b",
    "vm resume",
    "vm rollback",
    "network create n",
    "network create --cidr 10.0.0.0/24",
    "network create n --cidr 10.0.0.0/24 --type token-ring",
    "network create n --cidr 10.0.0.0/24 --outside everywhere",
    "network show",
    "network delete",
    "router create",
    "router add-interface r",
    "router set-gateway r",
    "router frobnicate r",
    "image build",
    "image show",
    "image delete",
    "image set a",
    "image set a --public --private",
    "image save a",
    "image save a b --format vdi",
    "flavor show",
    "flavor create a",
    "flavor create a --vcpus 1 --ram 64 --disk 1 --disk-mode round",
    "key create",
    "key create a --tenant b",
    "tenant create",
    "tenant show",
    "tenant token a",
    "tenant token a --role king",
    "tenant revoke",
    "steps x",
    "audit --fix=perhaps",
    "init --frobnicate",
]

REFUSED = [
    ("vm show nobody", "NotFound"),
    ("vm show ../../etc/passwd", "NotFound"),
    ("vm steps nobody", "NotFound"),
    ("vm ssh nobody", "NotFound"),
    ("vm console nobody", "NotFound"),
    ("network show nothing", "NotFound"),
    ("router show nothing", "NotFound"),
    ("image show nothing", "NotFound"),
    ("image save nothing /tmp/x", ("NotFound", "Denied")),
    ("flavor show nothing", "NotFound"),
    ("flavor delete nothing", "NotFound"),
    ("flavor create a --vcpus 0 --ram 64 --disk 1", "InvalidRequest"),
    ("key create ../outside", "InvalidRequest"),
    ("key create a --credentials n<>body", "InvalidRequest"),
    ("vm list --credentials nobody", "Transient"),
    ("vm list --credentials ../default", "InvalidRequest"),
    ("tenant show nobody", ("NotFound", "Denied")),
    ("tenant disable nobody", ("NotFound", "Denied")),
    ("tenant token nobody --role reader", ("NotFound", "Denied")),
    ("tenant revoke nothing", ("NotFound", "Denied")),
    ("tenant quota default --set instances", ("InvalidRequest", "Denied")),
    ("tenant quota default --set wishes=3", ("InvalidRequest", "Denied")),
    ("tenant quota default --set instances=-1", ("InvalidRequest", "Denied")),
    ("tenant create a", ("Transient", "Denied")),
    ("key create a --public-key /nowhere", "InvalidRequest"),
    ("vm create a --image i --network n --volume x", "InvalidRequest"),
    ("vm create a --image i --network n --volume 1.5", "InvalidRequest"),
    ("vm create a --image i --network n --user-data /nowhere", "InvalidRequest"),
    ("vm create a --image i --network n --user-data /", "InvalidRequest"),
    ("vm create a --image i --network n --inject /etc/hostname", "InvalidRequest"),
    ("vm create a --image i --network n --inject /nowhere:/etc/x", "InvalidRequest"),
    ("vm create a --image i --network n --inject :/etc/x", "InvalidRequest"),
    ("vm create a --image i --network n --key /nowhere", "InvalidRequest"),
    ("vm create a --image i --network n --key /etc/hostname", "InvalidRequest"),
    ("vm create a --image i --network n --detach", "Transient"),
    ("network create n --cidr 10.0.0.0/24 --segment x", ("InvalidRequest", "Denied")),
    ("init --api-url ftp://nowhere", ("InvalidRequest", "Denied")),
    ("init --api-url http://127.0.0.1:1/api", ("Transient", "Denied")),
]


@pytest.mark.parametrize("line", WRONG_USAGE)
def test_wrong_usage(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(line.split()) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert "hint: " in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize(("line", "kind"), REFUSED)
def test_refused(
    line: str, kind: str | tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(line.split()) == 1
    said = capsys.readouterr()
    assert said.out == ""
    first, *_more = said.err.splitlines()
    assert first.startswith("error: ")
    assert "Traceback" not in said.err

    assert run([*line.split(), "--json"]) == 1
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert document["error"] in ((kind,) if isinstance(kind, str) else kind)
    assert set(document) >= {"error", "message", "hint", "details"}
    assert said.err == ""


def test_a_console_without_end_is_no_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["vm", "console", "nobody", "--follow", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"] == "InvalidRequest"


def test_wrong_usage_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["vm", "list", "--json", "--frobnicate"]) == 2
    assert json.loads(capsys.readouterr().out)["error"] == "WrongUsage"


def test_all_that_is_wrong_with_the_files_is_told_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    line = ["vm", "create", "a", "--image", "i", "--network", "n", "--json", "--volume", "x"]
    line += ["--volume", "1e3", "--key", "./nokey", "--user-data", str(binary)]
    line += ["--inject", "nocolon", "--inject", "/nowhere:/etc/x"]
    assert run(line) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["error"] == "InvalidRequest"
    told = [detail.split(":")[0] for detail in document["details"]]
    assert sorted(told) == [
        "--inject",
        "--inject",
        "--key",
        "--user-data",
        "--volume",
        "--volume",
    ]


def test_without_a_state_store(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "state.db").unlink()
    assert run(["vm", "list"]) == 1
    assert "fifty init" in capsys.readouterr().err


def test_a_mistake_of_ours_is_one_line_and_a_log(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_credentials: str | None) -> None:
        raise ZeroDivisionError("one\ntwo \x1b[31m")

    monkeypatch.setattr("deployments.cli.vm_views.open_scope", broken)
    assert run(["vm", "list"]) == 1
    said = capsys.readouterr()
    assert said.err.splitlines()[0] == "error: ZeroDivisionError: one"
    assert "Traceback" not in said.err
    assert "\x1b" not in said.err
    assert "Traceback" in (home / "logs" / "fifty.log").read_text()


def test_control_characters_of_arguments_are_written_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["vm", "show", "a\x1b]0;owned\x07\u202eb\x9b"]) == 1
    said = capsys.readouterr()
    assert r"\x1b]0;owned\x07\u202eb\x9b" in said.err
    assert not {"\x1b", "\x07", "\u202e", "\x9b"} & set(said.err)
    assert run(["vm\x1b[31m"]) == 2
    assert "\x1b" not in capsys.readouterr().err


def _fifty(
    *words: str | bytes, home: Path, **options: object
) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "FIFTY_HOME": str(home), "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        [sys.executable, "-m", "deployments.cli", *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        check=False,
        timeout=120,
    )


def test_bytes_that_are_no_text(home: Path) -> None:
    done = _fifty("vm", "show", b"\xff\xfe", home=home)
    assert done.returncode == 2
    assert b"is not UTF-8" in done.stderr
    assert b"\xff" not in done.stderr


def test_a_short_command_imports_neither_prefect_nor_alembic(home: Path) -> None:
    script = (
        "import sys; from deployments.cli.app import run; code = run(['vm', 'list']);"
        "print(code, sorted(m for m in ('prefect', 'alembic', 'libvirt', 'rich', 'lxml')"
        " if m in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "FIFTY_HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.splitlines()[-1] == "0 []"


def test_the_reader_may_leave_early(home: Path) -> None:
    words = f"{sys.executable} -m deployments.cli --help | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", words],
        cwd=ROOT,
        env={**os.environ, "FIFTY_HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_an_encoding_without_our_signs(home: Path) -> None:
    environment = {**os.environ, "FIFTY_HOME": str(home), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-m", "deployments.cli", "--help"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr

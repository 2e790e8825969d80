"""README: its transcripts are run, its table is the catalogue, its pictures are there.

In a `console` block the lines after `$` are what the command printed; `...` stands for lines
that are left out. Numbers, ids and addresses may differ. After the steps were changed,
`README=write tests/run tests/e2e/test_readme.py -k table` renews the table.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.cli.glyphs import STAGES
from tests.cloud import Cloud
from tests.e2e.fresh_machine import PROJECT

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

README = PROJECT / "README.md"
#: Commands of `sh` blocks, and where they are run.
RUN_ELSEWHERE = {
    "sudo ./deployments/quickstart": "tests/e2e/test_quickstart.py",
    "sudo ./deployments/quickstart --down": "tests/e2e/test_quickstart.py",
    "./tests/run": "tests/run",
    "./tests/run --quick": "tests/run",
    "MATRIX=all ./tests/run tests/matrix": "tests/matrix/test_matrix.py",
    "CHAOS_SEED=7 CHAOS_SECONDS=600 ./tests/run tests/chaos": "tests/chaos/test_chaos.py",
    "PICTURES=deployments/pictures ./tests/run tests/e2e/test_terminal.py"
    " tests/service/test_ui.py": "tests/service/test_ui.py",
}
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARKED = re.compile(r"(<!-- steps: .*?-->\n)(.*?)(<!-- end of steps -->)", re.DOTALL)
#: What differs from run to run and from host to host.
_VARIABLE = (
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "ID"),
    (re.compile(r"http://127\.0\.0\.1:\d+"), "SERVER"),
    (re.compile(r"\b\d+\.\d+ s\b"), "T s"),
    (re.compile(r"\btap[0-9a-f]{11}\b"), "TAP"),
    (re.compile(r"\bfifty-[0-9a-f]{8}-"), "fifty-ID-"),
    (re.compile(r"\buser \d+$"), "user QEMU"),
    (re.compile(r"is ACTIVE on \S+"), "is ACTIVE on HOST"),
    (re.compile(r" {2,}"), "  "),
)


def blocks(language: str) -> list[str]:
    return [text for kind, text in _BLOCK.findall(README.read_text()) if kind == language]


def transcript() -> list[tuple[str, list[str]]]:
    """All commands of the `console` blocks, each with the lines that it is said to print."""
    said: list[tuple[str, list[str]]] = []
    for line in "".join(blocks("console")).splitlines():
        if line.startswith("$ "):
            said.append((line.removeprefix("$ "), []))
        else:
            said[-1][1].append(line)
    return said


def plain(line: str) -> str:
    for pattern, word in _VARIABLE:
        line = pattern.sub(word, line)
    return line.strip()


def assert_prints(command: str, expected: list[str], printed: list[str]) -> None:
    """Check that the lines come in this order, and others only where `...` is."""
    wanted = [plain(line) for line in expected if line.strip()]
    lines = [plain(line) for line in printed if line.strip()]
    position, skips = 0, False
    for line in wanted:
        if line == "...":
            skips = True
            continue
        rest = lines[position:]
        assert line in (rest if skips else rest[:1]), f"{command}: {line!r} is not in {rest}"
        position, skips = position + rest.index(line) + 1, False
    assert skips or position == len(lines), f"{command} printed more: {lines[position:]}"


@pytest.fixture
def its_network(site_cloud: Cloud) -> Iterator[None]:
    """What README makes besides VMs is removed, wherever the test ended."""
    yield
    for vm in site_cloud.json("vm", "list"):
        if vm["name"] in ("api", "db", "mail", "kept"):
            site_cloud.fifty("vm", "delete", vm["name"])
    for kind, name in (("network", "app"), ("router", "edge")):
        if name in {thing["name"] for thing in site_cloud.json(kind, "list")}:
            site_cloud.fifty(kind, "delete", name)


@pytest.mark.usefixtures("its_network")
def test_what_readme_says_is_what_happens(cloud: Cloud) -> None:
    for command, expected in transcript():
        words = shlex.split(command)
        fault = ""
        if words[0].startswith("FIFTY_FAULT="):
            fault = words.pop(0).partition("=")[2]
        assert words[0] == "fifty", command
        done = cloud.run(*words[1:], fault=fault)
        assert (done.returncode == 0) == (not fault), f"{command}: {done.stdout}\n{done.stderr}"
        assert_prints(command, expected, [*done.stderr.splitlines(), *done.stdout.splitlines()])


def test_other_commands_are_run_by_other_tests() -> None:
    commands = [line for text in blocks("sh") for line in text.splitlines()]
    assert sorted(commands) == sorted(RUN_ELSEWHERE)
    assert all((PROJECT / file).exists() for file in RUN_ELSEWHERE.values())


def test_the_table_of_steps_is_the_catalogue(site_cloud: Cloud) -> None:
    rows = ["| # | stage | step | what it does |", "|--:|---|---|---|"]
    for step in site_cloud.json("steps"):
        what = " ".join(step["doc"].partition("\n\n")[0].split()).replace("|", "\\|")
        undo = " *" if step["undo"] else ""
        rows.append(
            f"| {step['number']} | {STAGES[step['stage']]} | {step['title']}{undo} | {what} |"
        )
    table = "\n".join(rows) + "\n"
    text = README.read_text()
    if os.environ.get("README") == "write":
        README.write_text(_MARKED.sub(lambda found: found[1] + table + found[3], text))
    found = _MARKED.search(README.read_text())
    assert found is not None
    assert found[2] == table


def test_its_files_and_settings_are_there_and_it_names_no_host() -> None:
    text = README.read_text()
    for picture in re.findall(r"!\[[^]]+\]\(([^)]+)\)", text):
        file = PROJECT / picture
        assert file.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n", picture
        assert file.stat().st_size < 300_000, picture
    from blocks.settings import Settings

    told = set(re.findall(r"^\| `FIFTY_(\w+)`", text, re.MULTILINE)) - {"FAULT"}
    assert told == {name.upper() for name in Settings.model_fields}
    assert set(re.findall(r"https?://([^/\s)]+)", text)) == {"www.prefect.io", "127.0.0.1:4200"}
    assert not re.search(r"/work|/tmp|/root", text)
    assert len(text.splitlines()) < 640
    for path in re.findall(r"`((?:deployments|tests|tasks|flows)/[\w./-]+)`", text):
        assert (PROJECT / Path(path)).exists(), path

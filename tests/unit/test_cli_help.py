"""Help pages on a terminal of 80 columns."""

from __future__ import annotations

import importlib
import re
from itertools import pairwise
from keyword import iskeyword

import pytest

from deployments.cli.app import run
from deployments.cli.command_tree import TREE

COLUMNS = 80
#: What a line of a panel holds: its label, or none, and its words.
_LINE = re.compile(r"^│ (.*) │$")
PAGES = [
    *("", "image", "flavor", "vm snapshot"),
    *("image build", "image import", "image edit", "image check", "image certify", "image save"),
    *("flavor create", "vm create", "vm snapshot create", "network create"),
]


def told(capsys: pytest.CaptureFixture[str], page: str) -> str:
    assert run([*page.split(), "--help"]) == 0
    return capsys.readouterr().out


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(COLUMNS))


@pytest.mark.parametrize("page", PAGES)
def test_lines_end_where_the_terminal_does(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, page)
    lines = text.splitlines()
    assert max(map(len, lines)) == COLUMNS
    shown = [found[1] if (found := _LINE.match(line)) else "" for line in lines]
    for line, following in pairwise(shown):
        # The words of a description stand below each other, to the right of all labels.
        indent = len(following) - len(following.lstrip())
        if line and indent > len("*  --x") and following.strip():
            word = following.split()[0]
            full = len(line.rstrip()) + 1 + len(word) > COLUMNS - 4
            assert full, f"{word!r} would have been on the line before:\n{text}"


def test_a_page_tells_more_than_the_list_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Exits 0" in told(capsys, "image check")
    assert "Exits 0" not in told(capsys, "image")


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("vm snapshot revert", "what was written since is lost"),
        ("vm snapshot create", "Its volumes are not a part of it"),
        ("image capture", "is taken out: machine id, host keys"),
        ("image certify", "The trial VM is deleted"),
        ("image import", "hw_firmware_type=uefi"),
        ("image set", "root file system is ext2, 3 or 4"),
        ("flavor create", "What is not given has no limit"),
    ],
)
def test_a_page_tells_what_one_has_to_know_before(
    page: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = " ".join(told(capsys, page).replace("│", " ").split())
    assert words in text


def test_each_command_is_where_the_tree_says() -> None:
    """And its page, which is not its docstring, begins with one line in a list of commands."""
    for group, commands in TREE.items():
        for command, (module, text) in commands.items():
            function = f"{command}_" if iskeyword(command) else command.replace("-", "_")
            found = getattr(importlib.import_module(f"deployments.cli.{module}"), function)
            assert found.__doc__, (group, command)
            assert "\n" not in text.partition("\n\n")[0]

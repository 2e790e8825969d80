"""Help pages on a terminal of 80 columns."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from deployments.cli.app import run

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

"""The summary's Markdown holds whatever a step or a guest has said, and stays what it is."""

from __future__ import annotations

import pytest
from markdown_it import MarkdownIt

from tasks.summary import cell, fenced, shortened

HOSTILE = (
    "a | b | c",
    "line\nbreak\r\n\r\n# heading",
    "`code` ``` fence",
    "~~~\n</td></tr></table><script>alert(1)</script>",
    "[link](http://example.net) ![image](http://example.net/x.png)",
    "*bold* _it_ <b>tag</b> \\| \\",
    "\u2028\u2029\x00\x1b[31m",
    "````sh\nrm -rf /\n````",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_cell_stays_one_cell(text: str) -> None:
    markdown = f"| a | b |\n|---|---|\n| {cell(text)} | last |\n"
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown)
    assert [token.type for token in tokens].count("td_open") == 2
    inline = [token for token in tokens if token.type == "inline"]
    assert inline[-1].content == "last"
    kinds = {child.type for token in inline for child in token.children or ()}
    assert kinds <= {"text", "text_special"}


@pytest.mark.parametrize("text", HOSTILE)
def test_a_block_of_commands_ends_where_it_ends(text: str) -> None:
    tokens = MarkdownIt("commonmark").parse("\n".join([*fenced([text, "true"]), "", "after"]))
    assert [token.type for token in tokens] == [
        "fence",
        "paragraph_open",
        "inline",
        "paragraph_close",
    ]
    assert tokens[0].content.splitlines()[-1] == "true"


def test_a_long_text_is_cut_before_it_is_escaped() -> None:
    assert shortened("x" * 30, 30) == "x" * 30
    assert shortened("x" * 31, 30) == "x" * 29 + "…"
    assert cell(shortened("|" * 40, 30)).count("\\|") == 29

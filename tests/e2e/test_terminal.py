"""What a person sees of a build on the terminal, as it goes on.

README's picture of it is made here; this renews it:
`PICTURES=deployments/pictures tests/run tests/e2e/test_terminal.py`
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.cloud import Cloud
from tests.e2e import screen
from tests.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

LIKE_THIS = ("--image", "micro", "--flavor", "tiny", "--network", "lab")


def test_the_steps_are_drawn_with_the_one_at_work(cloud: Cloud, tmp_path: Path) -> None:
    pictures = Path(os.environ.get("PICTURES", tmp_path))
    with screen.Terminal(tmp_path / "tmux") as terminal:
        terminal.run(
            "fifty", "vm", "create", "drawn", *LIKE_THIS, variables={"FIFTY_FAULT": "47:hang"}
        )
        eventually(lambda: "▶ 47 Watch the boot" in terminal.text(), "step 47 at work")
    cloud.fifty("vm", "resume", "drawn")
    with screen.Terminal(tmp_path / "tmux") as terminal:
        terminal.run("fifty", "vm", "create", "web", *LIKE_THIS, "--volume", "1")
        eventually(lambda: "web is ACTIVE" in terminal.text(), "VM on the terminal")
        shown = terminal.text()
        for step in cloud.json("steps"):
            words = f"{step['number']:02d} {step['title']}"
            assert re.search(rf"✔ {re.escape(words)} +\d", shown), words
        eventually(lambda: "run " in terminal.text(), "last line")
        with screen.browser() as page:
            terminal.picture(page, pictures / "terminal.png")

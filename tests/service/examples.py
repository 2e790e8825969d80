"""The files under deployments/examples, used as their comments say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "deployments" / "examples"
_COMMAND = re.compile(r"^#   \$ (.*)$", re.MULTILINE)


def commands(example: str) -> list[str]:
    """The command lines in an example's comments, in order."""
    return _COMMAND.findall((EXAMPLES / example).read_text())


def type_in(line: str, folder: Path, **variables: str) -> str:
    """Run such a line as a person would, from the project's root, files going to a folder."""
    words = {
        "notify.yaml": str(folder / "notify.yaml"),
        "nightly.yaml": str(folder / "nightly.yaml"),
    }
    for word, path in words.items():
        line = re.sub(rf"(?<![\w/-]){re.escape(word)}", path, line)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", line],
        capture_output=True,
        text=True,
        cwd=EXAMPLES.parents[1],
        env={
            **os.environ,
            **variables,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        },
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()

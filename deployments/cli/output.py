"""What the command line prints: for people on a terminal, or one JSON document.

Nothing that somebody else chose (a name, a message, a guest's console) reaches the
terminal with its control characters: they could move the cursor or set its title.
"""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from blocks.errors import FiftyError

#: Exit codes of what a signal ended, as a shell tells them: 128 and the signal's number.
INTERRUPTED = 130
TERMINATED = 143

#: With less room than this beside the names, lines are left to the terminal.
_LEAST_ROOM = 20

#: Control, format (bidirectional overrides), surrogates, line and paragraph separators.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


class Refusal(Exception):
    """The command did not do what it was asked for; `document` says what and why.

    Args:
        document: `error`, `message`, `hint`, `details`, and more where there is more.
        exit_code: The process's exit code.
    """

    def __init__(self, document: Mapping[str, Any], exit_code: int = 1) -> None:
        super().__init__(str(document["message"]))
        self.document = dict(document)
        self.exit_code = exit_code


class WrongUsage(Refusal):
    """The command line lacks something that the parser cannot know of."""

    def __init__(self, message: str, hint: str) -> None:
        document = {"error": "WrongUsage", "message": message, "hint": hint, "details": []}
        super().__init__(document, exit_code=2)


class Terminated(BaseException):
    """SIGTERM came. Where a flow was at work it has come to rest; its build can be gone on with."""


def plain(text: object) -> str:
    r"""Text with everything that is not to be seen written out (`\x1b`)."""
    shown = str(text)
    if shown.isascii() and shown.isprintable():
        return shown
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in _HIDDEN
        else character
        for character in shown
    )


def prepare_streams() -> None:
    """A character that the terminal's encoding lacks is written out, and is no error."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def say(line: str = "") -> None:
    """One line for a person; what is in it has been made plain."""
    print(line)


def note(line: str) -> None:
    """One line about what is going on, on standard error."""
    print(line, file=sys.stderr, flush=True)


def document(value: Any) -> None:  # noqa: ANN401 - any JSON
    """The one JSON document of a `--json` command; control characters are escaped in it."""
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], nothing: str) -> None:
    """Aligned columns; with thousands of rows this takes no time, as rich's tables do."""
    cells = [[plain(cell) if cell is not None else "-" for cell in row] for row in rows]
    if not cells:
        say(nothing)
        return
    widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
    for row in (headers, *cells):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        say(line.rstrip())


def things(
    headers: Sequence[str],
    rows: Iterable[Sequence[object]],
    documents: Sequence[Mapping[str, Any]],
    nothing: str,
) -> None:
    """A table of things, each with its document; those of all tenants say whose they are."""
    if any("tenant" in item for item in documents):
        headers = ("TENANT", *headers)
        rows = ((item["tenant"], *row) for item, row in zip(documents, rows, strict=True))
    table(headers, rows, nothing)


def facts(pairs: Iterable[tuple[str, object]]) -> None:
    """A name and a value a line; what has no value is left out."""
    shown = [(name, value) for name, value in pairs if value not in (None, "", ())]
    width = max((len(name) for name, _value in shown), default=0)
    for name, value in shown:
        say(f"{name.ljust(width)}  {_hanging(plain(value), width + 2)}")


def _hanging(text: str, indent: int) -> str:
    """A text's further lines below its first one, on a terminal; elsewhere it is one line."""
    room = shutil.get_terminal_size().columns - indent
    if not sys.stdout.isatty() or len(text) <= room or room < _LEAST_ROOM:
        return text
    lines = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False)
    return f"\n{' ' * indent}".join(lines)


def duration(seconds: float | None) -> str:
    """Seconds as a person reads them; nothing for None."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def refusal_document(error: BaseException) -> dict[str, Any]:
    """An error as `--json` prints it."""
    if isinstance(error, Refusal):
        return error.document
    if isinstance(error, FiftyError):
        return error.as_dict()
    return {"error": type(error).__name__, "message": str(error), "hint": "", "details": []}


def refuse(refusal: Mapping[str, Any], *, as_json: bool) -> None:
    """Tell what was refused or failed, why, and what to do about it."""
    if as_json:
        document(refusal)
        return
    # A foreign error's message may have several lines: the first one says what.
    message, *more = str(refusal["message"]).strip().splitlines() or [str(refusal["error"])]
    title = f" ({refusal['step_title']})" if refusal.get("step_title") else ""
    at = f"step {refusal['step']}{title}: " if refusal.get("step") else ""
    note(f"error: {plain(at + message)}")
    for line in (*more, *refusal.get("details", ())):
        if line.strip():
            note(f"  - {plain(line.rstrip())}")
    if refusal.get("hint"):
        note(f"hint: {plain(refusal['hint'])}")
    _after(refusal)


def _after(refusal: Mapping[str, Any]) -> None:
    """What a build that failed leaves, and the commands that go on from there."""
    undone, left = refusal.get("undone"), refusal.get("left")
    if undone:
        note(f"undone: {_steps(undone)}")
    if left:
        note(f"left as it is: {_steps(left)}")
    for what, command in (refusal.get("next") or {}).items():
        note(f"{what}: {plain(command)}")
    if refusal.get("url"):
        note(f"run: {plain(refusal['url'])}")


def _steps(numbers: Sequence[int]) -> str:
    """Step numbers, neighbours put together: `9-11, 17`."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    words = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return f"step{'s' if len(numbers) > 1 else ''} {', '.join(words)}"

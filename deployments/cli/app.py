"""The commands' tree, and what becomes of their errors: never a traceback."""

from __future__ import annotations

import importlib.metadata
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from keyword import iskeyword
from pathlib import Path
from typing import Any

from cyclopts import App, CycloptsError, Group

from blocks.errors import FiftyError
from blocks.settings import DEFAULT_HOME
from deployments.cli import output
from deployments.cli.command_tree import HELP, TREE
from deployments.cli.help_pages import HelpPages

REFUSED = 1
WRONG_USAGE = 2

_SITE = Group("This site", sort_key=1)
_THINGS = Group("Things", sort_key=2)


def application() -> App:
    """The tree of commands. A command's module is imported when the command is used."""
    root = _app("")
    apps = {"": root}
    root.version = lambda: importlib.metadata.version("fifty-steps")
    root.version_flags = ["--version"]
    for name, commands in TREE.items():
        app = apps[name] = _app(name) if name else root
        for command, (module, text) in commands.items():
            function = f"{command}_" if iskeyword(command) else command.replace("-", "_")
            path = f"deployments.cli.{module}:{function}"
            options: dict[str, Any] = {"group": _SITE} if app is root else {}
            app.command(path, name=command, help=text, **options)
        if app is not root:
            parent = apps[name.rpartition(" ")[0]]
            app.group = (_THINGS,) if parent is root else ()
            parent.command(app)
    return root


def _app(name: str) -> App:
    return App(
        name=name.rpartition(" ")[2] or "fifty",
        help=HELP[name],
        version_flags=[],
        help_format="plaintext",
        help_formatter=HelpPages(),
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )


def run(arguments: Sequence[str]) -> int:
    """Run one command line.

    Args:
        arguments: The words after `fifty`.

    Returns:
        The process's exit code.
    """
    output.prepare_streams()
    as_json = "--json" in _options(arguments)
    try:
        try:
            code = _dispatch(arguments)
        except Exception as error:
            if isinstance(error, BrokenPipeError):
                raise
            code, document = _explained(error)
            output.refuse(document, as_json=as_json)
        except KeyboardInterrupt:
            code = output.INTERRUPTED
            output.refuse(_refusal("Interrupted", "stopped by Ctrl-C"), as_json=as_json)
        except output.Terminated:
            code = output.TERMINATED
            hint = "`fifty reconcile` brings what was begun to its end"
            output.refuse(_refusal("Terminated", "stopped by SIGTERM", hint), as_json=as_json)
        sys.stdout.flush()
    except BrokenPipeError:
        # Who read our output has gone (`| head`): nothing is left to say, nor to flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return REFUSED
    return code


def _explained(error: Exception) -> tuple[int, Mapping[str, Any]]:
    """The exit code for an error, and what is told about it."""
    if isinstance(error, CycloptsError):
        hint = "`fifty --help`, or --help after the command, tells the right usage"
        return WRONG_USAGE, _refusal("WrongUsage", str(error).rstrip("."), hint)
    if isinstance(error, output.Refusal):
        return error.exit_code, error.document
    if isinstance(error, FiftyError):
        return REFUSED, error.as_dict()
    return REFUSED, _unexpected(error)


def _refusal(kind: str, message: str, hint: str = "") -> dict[str, Any]:
    return {"error": kind, "message": message, "hint": hint, "details": []}


def _dispatch(arguments: Sequence[str]) -> int:
    for word in arguments:
        if not word.isascii() and _not_utf8(word):
            document = _refusal("WrongUsage", f"{word!r} is not UTF-8", "write it in UTF-8")
            raise output.Refusal(document, WRONG_USAGE)
    result = application()(arguments, exit_on_error=False, print_error=False)
    return result if isinstance(result, int) else 0


def _not_utf8(word: str) -> bool:
    """Whether an argument's bytes were no UTF-8: Python then keeps them as surrogates."""
    return any("\ud800" <= character <= "\udfff" for character in word)


def _options(arguments: Sequence[str]) -> Sequence[str]:
    """The words before a `--`."""
    words = list(arguments)
    return words[: words.index("--")] if "--" in words else words


def _unexpected(error: Exception) -> dict[str, Any]:
    """A mistake of ours, or of a part below: one line here, the traceback in the log."""
    log = Path(os.environ.get("FIFTY_HOME", DEFAULT_HOME)) / "logs" / "fifty.log"
    text = "".join(traceback.format_exception(error))
    try:
        log.parent.mkdir(mode=0o700, exist_ok=True)
        with log.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{datetime.now(UTC).isoformat()} {sys.argv!r}\n{text}\n")
        hint = f"this is a mistake of Fifty Steps; the traceback is in {log}"
    except OSError as unwritable:
        hint = f"the traceback could not be written to {log}: {unwritable.strerror}"
    return _refusal(type(error).__name__, f"{type(error).__name__}: {error}", hint)

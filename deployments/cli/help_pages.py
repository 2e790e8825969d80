"""Help pages: a description's lines end where the terminal's do, and not where its source's do.

cyclopts' own formatter, and with it rich, is imported when a page is shown.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclopts.help import HelpPanel
    from rich.console import Console, ConsoleOptions

_WITHIN_PARAGRAPH = re.compile(r"(?<!\n)\n(?!\n)")


class HelpPages:
    """As cyclopts shows them, reflowed."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """Show one panel: commands, arguments or parameters."""
        for entry in panel.entries:
            _reflow(entry.description)
        self._default()(console, options, panel)

    def render_usage(self, console: Console, options: ConsoleOptions, usage: object) -> None:
        """Show the line that tells the usage."""
        self._default().render_usage(console, options, usage)

    def render_description(
        self, console: Console, options: ConsoleOptions, description: object
    ) -> None:
        """Show what the command is for."""
        _reflow(description)
        self._default().render_description(console, options, description)

    @staticmethod
    def _default() -> Any:  # noqa: ANN401 - cyclopts' formatter, imported late
        from cyclopts.help.formatters import DefaultFormatter

        return DefaultFormatter()


def _reflow(description: object) -> None:
    """Put the lines of each paragraph of a plain text together."""
    from rich.text import Text

    shown = getattr(description, "primary_renderable", None)
    if isinstance(shown, Text):
        shown.plain = _WITHIN_PARAGRAPH.sub(" ", shown.plain)

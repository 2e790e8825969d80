"""What a person sees: pages of the Prefect UI in a browser, and a terminal's screen."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from playwright.sync_api import Page, expect, sync_playwright
from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

WIDTH, HEIGHT = 1400, 1000
#: A limit that only something broken reaches; the UI polls the API every few seconds.
PATIENCE_MS = 120_000
_CHROMIUM = "/usr/bin/chromium"
_OPTIONS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
_PAGE = """<body style="margin:0;background:{background}"><pre id="screen" style="display:
inline-block;margin:0;padding:14px 18px;color:{foreground};font:15px/1.25 'DejaVu Sans Mono',
monospace">{code}</pre></body>"""


@contextmanager
def browser(*, logged_in: bool = True) -> Iterator[Page]:
    """A page of a headless browser that speaks with this machine only.

    Args:
        logged_in: As if the Prefect server's password had been typed into the UI before.
    """
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=_CHROMIUM, args=list(_OPTIONS))
        page = chromium.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.set_default_timeout(PATIENCE_MS)
        if logged_in:
            auth = os.environ["PREFECT_API_AUTH_STRING"]
            page.add_init_script(f"localStorage.setItem('prefect-password', {_stored(auth)})")
        page.route(re.compile(r"^https?://(?!127\.0\.0\.1[:/])"), lambda route: route.abort())
        yield page
        chromium.close()


def _stored(auth: str) -> str:
    """A password as the UI keeps it in the browser, as JavaScript."""
    return json.dumps(base64.b64encode(auth.encode()).decode())


class Terminal:
    """A terminal of tmux, in which one command is run.

    Args:
        socket: Where tmux listens; no other tmux is touched.
        columns: Its width.
        lines: Its height.
    """

    def __init__(self, socket: Path, *, columns: int = 100, lines: int = 66) -> None:
        self._tmux = ("tmux", "-f", "/dev/null", "-S", str(socket))
        self._size = ("-x", str(columns), "-y", str(lines))
        self._columns = columns

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        subprocess.run([*self._tmux, "kill-server"], capture_output=True, check=False)

    def run(self, *words: str, variables: Mapping[str, str] | None = None) -> None:
        """Type a command of this project's environment; what it says stays on the screen."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        script = f"printf '$ %s\\n' {shlex.quote(shlex.join(words))}; {shlex.join(words)}; exec cat"
        subprocess.run(
            [*self._tmux, "new-session", "-d", *self._size, script],
            env={**os.environ, **(variables or {}), "PATH": path, "LC_ALL": "C.UTF-8"},
            check=True,
        )

    def text(self) -> str:
        """What is on the screen now."""
        return self._captured()

    def picture(self, page: Page, file: Path) -> None:
        """Write the screen, with its colours, as a PNG."""
        console = Console(record=True, width=self._columns, file=io.StringIO())
        console.print(Text.from_ansi(self._captured("-e").rstrip()))
        page.set_content(
            console.export_html(theme=DIMMED_MONOKAI, inline_styles=True, code_format=_PAGE)
        )
        page.locator("#screen").screenshot(path=file)

    def _captured(self, *options: str) -> str:
        done = subprocess.run(
            [*self._tmux, "capture-pane", "-p", *options],
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

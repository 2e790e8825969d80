"""A build drawn from its journal: lines for a pipe, stages and steps for a terminal."""

from __future__ import annotations

import os
import pty
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.settings import settings
from blocks.state import Build, StepState
from deployments.cli.drawing import Drawing, Lines, view_for
from deployments.cli.live import Row, chosen
from tests.unit.cli_store import STEPS, Filled

HOSTILE = "no luck \x1b]0;owned\x07"


@pytest.fixture(name="filled")
def _filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Filled]:
    monkeypatch.setenv("FIFTY_HOME", str(tmp_path))
    settings.cache_clear()
    filled = Filled(tmp_path)
    yield filled
    filled.store.database.dispose()
    settings.cache_clear()


def _play(filled: Filled, build: Build, *, fail_at: int | None = None) -> None:
    """Write the journal of a build that ends well, or fails at a step and is undone."""
    journal = filled.store.journal
    for step in STEPS:
        journal.intend(build.id, 1, step.number, "here")
        if step.number != fail_at:
            journal.close(build.id, 1, step.number, StepState.DONE)
            continue
        error = {"error": "HostFault", "message": HOSTILE, "hint": "", "details": []}
        journal.close(build.id, 1, step.number, StepState.FAILED, error=error)
        for undone in range(step.number, 0, -1):
            journal.intend_undo(build.id, 1, undone, "here")
            journal.close(build.id, 1, undone, StepState.UNDONE)
        return


def test_a_line_for_each_step_that_ends(filled: Filled, capsys: pytest.CaptureFixture[str]) -> None:
    build = filled.add_build("hello")
    with Drawing(filled.store, lambda: filled.store.builds.get(build.id), Lines()):
        _play(filled, build)
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert [line.split(" · ")[0] for line in lines] == [f"✔ {n:02d}" for n in range(1, 7)]
    assert "Do 3" in lines[2]


def test_a_second_run_does_not_tell_the_first_ones_steps(
    filled: Filled, capsys: pytest.CaptureFixture[str]
) -> None:
    build = filled.add_build("hello")
    journal = filled.store.journal
    for number in (1, 2):
        journal.intend(build.id, 1, number, "here")
        journal.close(build.id, 1, number, StepState.DONE)
    with Drawing(filled.store, lambda: filled.store.builds.get(build.id), Lines()):
        journal.intend(build.id, 1, 3, "here")
        journal.close(build.id, 1, 3, StepState.DONE)
    assert [line.split(" · ")[0] for line in capsys.readouterr().err.splitlines()] == ["✔ 03"]


def test_a_build_that_appears_only_later(
    filled: Filled, capsys: pytest.CaptureFixture[str]
) -> None:
    builds: list[Build] = []
    view = Lines()
    with Drawing(filled.store, lambda: builds[0] if builds else None, view):
        builds.append(filled.add_build("hello"))
        _play(filled, builds[0])
    assert len(capsys.readouterr().err.splitlines()) == len(STEPS)


def test_undoing_is_told_without_control_characters(
    filled: Filled, capsys: pytest.CaptureFixture[str]
) -> None:
    build = filled.add_build("hello")
    with Drawing(filled.store, lambda: filled.store.builds.get(build.id), Lines()):
        _play(filled, build, fail_at=4)
    err = capsys.readouterr().err
    assert not {"\x1b", "\x07"} & set(err)
    assert "✘ 04 · Do 4  failed: no luck" in err
    # Step 1 changes nothing: that it is "undone" is nobody's news.
    assert not any(line.startswith("↶ 01") for line in err.splitlines())
    for number in (4, 3, 2):
        assert f"↶ {number:02d} · Do {number}  undone" in err


def test_a_failure_that_is_first_seen_when_it_is_being_undone_is_told_once(
    filled: Filled, capsys: pytest.CaptureFixture[str]
) -> None:
    build, view, journal = filled.add_build("hello"), Lines(), filled.store.journal
    error = {"error": "HostFault", "message": "no luck", "hint": "", "details": []}

    def look() -> None:
        view.show(build, journal.entries(build.id, 1), STEPS)

    journal.intend(build.id, 1, 4, "here")
    look()
    journal.close(build.id, 1, 4, StepState.FAILED, error=error)
    journal.intend_undo(build.id, 1, 4, "here")
    look()
    journal.close(build.id, 1, 4, StepState.UNDONE)
    look()
    told = ["✘ 04 · Do 4  failed: no luck", "↶ 04 · Do 4  undone"]
    assert capsys.readouterr().err.splitlines() == told


def test_where_there_is_little_room_what_goes_on_comes_first(filled: Filled) -> None:
    build = filled.add_build("hello")
    journal = filled.store.journal
    for number in (1, 2, 3, 4):
        journal.intend(build.id, 1, number, "here")
        if number != 4:
            journal.close(build.id, 1, number, StepState.DONE)
    entries = {entry.step: entry for entry in journal.entries(build.id, 1)}
    rows = [Row(step, entries.get(step.number)) for step in STEPS]
    assert chosen(rows, 6) == {1, 2, 3, 4, 5, 6}
    assert chosen(rows, 2) == {4, 5}
    assert chosen(rows, 1) == {4}
    assert chosen(rows, 0) == chosen(rows, -5) == set()


@pytest.mark.parametrize("height", [8, 60])
def test_on_a_terminal(filled: Filled, monkeypatch: pytest.MonkeyPatch, height: int) -> None:
    """Drawn on a real pseudo-terminal, never more lines than it has."""
    reader, writer = pty.openpty()
    monkeypatch.setenv("TERM", "xterm-256color")
    # rich asks the process's own standard streams for their size, and these are pytest's.
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", str(height))
    for variable in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(variable, raising=False)
    read: list[bytes] = []

    def drain() -> None:
        while True:
            try:
                chunk = os.read(reader, 65536)
            except OSError:
                return
            if not chunk:
                return
            read.append(chunk)

    thread = threading.Thread(target=drain)
    thread.start()
    build = filled.add_build("hello")
    with os.fdopen(writer, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        view = view_for(as_json=False, title="Creating \x1b[31mhello")
        with Drawing(filled.store, lambda: filled.store.builds.get(build.id), view):
            _play(filled, build, fail_at=4)
        monkeypatch.undo()
    thread.join()
    os.close(reader)
    drawn = b"".join(read).decode()
    assert "owned\x07" not in drawn
    assert r"Creating \x1b[31mhello" in drawn
    # Each drawing goes up over the one before: by less than the terminal's height.
    ups = [len(run) // len("\x1b[1A\x1b[2K") for run in re.findall(r"(?:\x1b\[1A\x1b\[2K)+", drawn)]
    assert all(up < height for up in ups)
    last = re.split(r"(?:\x1b\[1A\x1b\[2K)+", drawn)[-1]
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", last)
    assert "API" in plain
    assert "3 undone" in plain
    if height > len(STEPS) + 5:
        assert "↶ 04 Do 4" in plain
        assert "· 06 Do 6" in plain

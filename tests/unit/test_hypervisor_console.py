"""Reading a console's log: growing, replaced, truncated, endless, hostile."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from blocks.errors import GuestFault
from blocks.hypervisor.console import ConsoleEvent, milestones, stage_of, tail, watch_console

READY = re.compile(rb"ready \w+")
PANIC = re.compile(rb"panic")
LIMIT_S = 30.0


def watch(log: Path, alive: Callable[[], bool] = lambda: True) -> ConsoleEvent:
    return watch_console(log, [READY], [PANIC], LIMIT_S, alive)


def after_the_first_look(do: Callable[[], None]) -> Callable[[], bool]:
    """A guest that lives, and that does something once its log has been read to the end."""
    todo = [do]

    def alive() -> bool:
        if todo:
            todo.pop()()
        return True

    return alive


def test_a_log_that_comes_later_and_grows(tmp_path: Path) -> None:
    log = tmp_path / "console.log"

    def write() -> None:
        log.write_bytes(b"one\nrea")
        threading.Timer(0.1, lambda: _append(log, b"dy web\n")).start()

    assert watch(log, after_the_first_look(write)).line == "ready web"


def _append(log: Path, text: bytes) -> None:
    with log.open("ab") as file:
        file.write(text)


def test_a_log_that_is_replaced(tmp_path: Path) -> None:
    """virtlogd moves a full log away: the rest of it counts, and the new one."""
    log = tmp_path / "console.log"
    log.write_bytes(b"begin\n")

    def rotate() -> None:
        _append(log, b"more\n")
        log.rename(tmp_path / "console.log.0")
        log.write_bytes(b"ready new\n")

    assert watch(log, after_the_first_look(rotate)).line == "ready new"


def test_a_log_that_is_truncated(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    log.write_bytes(b"a long story of the last start\n")
    assert watch(log, after_the_first_look(lambda: _rewrite(log))).line == "ready two"


def _rewrite(log: Path) -> None:
    log.write_bytes(b"ready two\n")


def test_a_prompt_has_no_end(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    log.write_bytes(b"\r\nweb ready login: ")
    assert watch(log).line == "web ready login:"


def test_the_first_line_that_tells_decides(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    log.write_bytes(b"ready first\npanic\n")
    assert watch(log).line == "ready first"
    log.write_bytes(b"panic\nready late\n")
    with pytest.raises(GuestFault, match="panic"):
        watch(log)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    """Control sequences are taken away, what does not decode neither raises nor passes."""
    log = tmp_path / "console.log"
    log.write_bytes(
        b"\x1bc\x1b[?7l\x1b[2J\x1b[0mre\x1b[1mady \xff\xfeweb\x9b31m \n\x00\xffready x\x07\n"
    )
    event = watch(log)
    assert event.line.endswith("ready x")
    assert all(char.isprintable() for line in tail(log) for char in line)


def test_a_line_without_end_takes_no_memory(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    with log.open("wb") as file:
        for _ in range(256):
            file.write(b"x" * 65536)
        file.write(b"\nready after\n")
    assert watch(log).line == "ready after"
    assert len(tail(log)[-1]) <= 500


def test_a_guest_that_is_gone_has_its_last_words_read(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    log.write_bytes(b"Linux version 6\nlast")
    with pytest.raises(GuestFault, match=r"ended.*kernel") as caught:
        watch(log, lambda: False)
    assert caught.value.details == ("Linux version 6", "last")
    log.write_bytes(b"ready then\n")
    assert watch(log, lambda: False).line == "ready then"


def test_twenty_lines_at_most(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    log.write_text("".join(f"line {number}\n" for number in range(100)))
    with pytest.raises(GuestFault) as caught:
        watch_console(log, [READY], [PANIC], 0.0, lambda: True)
    assert caught.value.details == tuple(f"line {number}" for number in range(80, 100))
    assert tail(tmp_path / "none") == [] and milestones(tmp_path / "none") == []


def test_the_line_that_fails_is_told_however_much_follows(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    trace = "".join(f" ? function_{number}\n" for number in range(60))
    log.write_text("".join(f"line {number}\n" for number in range(60)) + "panic!\n" + trace)
    with pytest.raises(GuestFault, match="the guest says: panic!") as caught:
        watch(log)
    assert len(caught.value.details) == 20
    assert caught.value.details[8:11] == ("line 59", "panic!", "? function_0")


@pytest.mark.parametrize(
    ("line", "stage"),
    [
        (b"SeaBIOS (version 1.16.2-debian-1.16.2-1)", "firmware"),
        (b"Booting from Hard Disk...", "boot sector"),
        (b"SYSLINUX 6.04 EDD 20210613 Copyright (C) 1994-2015", "boot loader"),
        (b"Welcome to GRUB!", "boot loader"),
        (b"[    0.000000] Linux version 6.1.0-56-cloud-amd64", "kernel"),
        (b"Welcome to Debian GNU/Linux 12 (bookworm)!", "init"),
        (b"web login: ", "login"),
        (b"hello", None),
    ],
)
def test_stages(line: bytes, stage: str | None) -> None:
    assert stage_of(line) == stage

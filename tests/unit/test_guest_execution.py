"""What is kept of what a command says, and what becomes of one that does not end."""

from __future__ import annotations

from pathlib import Path

from blocks.guest import execute
from blocks.guest.execution import KEPT_BYTES


def test_both_streams_are_kept_in_order_with_the_exit_code() -> None:
    done = execute(["sh", "-c", "echo one; echo two >&2; printf '\\377'; exit 7"], 60)
    assert (done.exit_code, done.output, done.left_out) == (
        7,
        "one\ntwo\n\N{REPLACEMENT CHARACTER}",
        0,
    )


def test_of_a_long_output_the_beginning_and_the_end_are_kept() -> None:
    script = "echo first; yes 0123456789 | head -n 200000; echo last"
    done = execute(["sh", "-c", script], 60)
    assert done.exit_code == 0
    assert done.output.startswith("first\n0123456789\n")
    assert done.output.endswith("0123456789\nlast\n")
    assert done.left_out == len("first\nlast\n") + 11 * 200_000 - 2 * KEPT_BYTES
    assert f"[... {done.left_out} bytes left out ...]" in done.output


def test_what_does_not_end_is_killed_and_its_words_are_kept(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    done = execute(["sh", "-c", f"echo $$ > {pid}; echo said; exec sleep 1000"], 1)
    assert (done.exit_code, done.output) == (None, "said\n")
    assert not Path(f"/proc/{pid.read_text().strip()}").exists()


def test_one_that_closed_its_output_and_goes_on_is_given_up_too() -> None:
    done = execute(["sh", "-c", "exec >&- 2>&-; exec sleep 1000"], 1)
    assert (done.exit_code, done.output) == (None, "")

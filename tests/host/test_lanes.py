"""Two lanes at the same time: they do not see each other, either can be red, and both end."""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.commands import run
from tests import sessions
from tests.lanes import LANE_2, PROJECT, divided, verdict
from tests.waiting import eventually

pytestmark = pytest.mark.host

FOLDERS = ("unit", "host", "e2e", "faults", "service", "matrix", "chaos")
#: Runs two shell scripts in two lanes, as `tests.lanes` runs pytest.
_RUN = """
import sys
from tests import lanes, sessions
directory = sessions.begin()
try:
    with lanes.Lanes(directory) as both:
        code = both.run(*(["sh", "-c", script] for script in sys.argv[1:]))
finally:
    sessions.end(directory)
sys.exit(code)
"""
_KINDS = ("net", "pid", "mnt", "uts", "ipc")
_LOOK = """
echo {lane} link $(ls /sys/class/net)
echo {lane} file $(ls /var/tmp)
for kind in {kinds}; do echo {lane} $kind $(readlink /proc/self/ns/$kind); done
"""
_STAY = "trap 'echo {lane} was told; exit 0' INT; touch /var/tmp/{token}; while :; do sleep 1; done"


def begin(first: str, second: str) -> subprocess.Popen[str]:
    """Two lanes with a script in each."""
    words = [sys.executable, "-c", _RUN, first, second]
    return subprocess.Popen(words, cwd=PROJECT, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def staying() -> Iterator[tuple[subprocess.Popen[str], str, Path]]:
    """Two lanes that end only when told; a word in their arguments; their directory."""
    token = f"lane-{secrets.token_hex(8)}"
    device = "truncate -s 1M {0}/disk; losetup --find {0}/disk"
    loop = f"mkdir /var/tmp/fifty-tests-{token}; {device.format(f'/var/tmp/fifty-tests-{token}')}"
    stay = {lane: _STAY.format(lane=lane, token=token) for lane in ("first", "second")}
    process = begin(stay["first"], f"{loop}; {stay['second']}")
    try:
        eventually(Path("/var/tmp", token).exists, "lane 1")
        [there] = eventually(
            lambda: list(Path("/var/tmp").glob(f"fifty-tests-*/lane/var-tmp/{token}")), "lane 2"
        )
        yield process, token, there.parents[2]
    finally:
        process.kill()
        process.wait()
        Path("/var/tmp", token).unlink(missing_ok=True)


def told(process: subprocess.Popen[str]) -> str:
    """What the lanes said, when they have ended."""
    return process.communicate(timeout=300)[0]


def test_every_test_is_in_one_lane() -> None:
    folders = [f"tests/{name}" for name in FOLDERS]
    first, second = divided(folders)
    ignored = {word.removeprefix("--ignore=") for word in first if word.startswith("--")}
    every = {str(path.relative_to(PROJECT)) for path in (PROJECT / "tests").rglob("test_*.py")}
    by_name = {path for path in every if path.startswith(("tests/bench/", "tests/stock_kernel/"))}

    def files(paths: set[str]) -> set[str]:
        return {one for one in every if any(Path(one).is_relative_to(path) for path in paths)}

    in_first, in_second = files(set(first)) - files(ignored), files(set(second))
    assert in_first & in_second == set()
    assert in_first | in_second == every - by_name
    assert all(list(PROJECT.glob(pattern)) for pattern in LANE_2)
    assert divided(["tests/e2e/nothing"]) == (["tests/e2e/nothing"], [])


def test_lane_2_has_a_host_of_its_own(site: str) -> None:
    link, kinds = f"ft{site}seen", " ".join(_KINDS)
    run("ip", "link", "add", link, "type", "bridge")
    try:
        said = told(begin(*(_LOOK.format(lane=lane, kinds=kinds) for lane in ("first", "second"))))
    finally:
        run("ip", "link", "delete", link)
    lines = [line.split() for line in said.splitlines() if line.startswith(("first", "second"))]
    first, second = (
        {kind: words for lane, kind, *words in lines if lane == which}
        for which in ("first", "second")
    )
    assert link in first["link"]
    assert second["link"] == ["lo"]
    assert any(name.startswith("fifty-tests-") for name in first["file"])
    assert second["file"] == ["entered"]
    assert [
        kind for kind in ("net", "pid", "mnt", "uts", "ipc") if first[kind] == second[kind]
    ] == []


@pytest.mark.parametrize(("first", "second", "whole"), [(0, 0, 0), (0, 1, 1), (2, 5, 2)])
def test_all_is_red_when_a_lane_is(first: int, second: int, whole: int) -> None:
    process = begin(f"exit {first}", f"echo said in lane 2; exit {second}")
    lines = told(process).splitlines()
    assert process.returncode == whole
    assert "said in lane 2" in lines
    assert lines[-1].startswith("== lane 1 ")
    assert lines[-1].count("red") == (first not in (0, 5)) + (second not in (0, 5))


@pytest.mark.parametrize(("codes", "whole"), [((5, 0), 0), ((5, 5), 5), ((0, -9), 137)])
def test_a_lane_without_tests_is_not_red_and_a_killed_one_is(
    codes: tuple[int, int], whole: int
) -> None:
    """5: pytest found no tests, as with `-k WORD`. Negative: ended by a signal."""
    assert verdict(codes) == whole


def test_a_signal_ends_both(staying: tuple[subprocess.Popen[str], str, Path]) -> None:
    process, token, directory = staying
    process.send_signal(signal.SIGTERM)
    said = told(process).splitlines()
    assert {"first was told", "second was told"} <= set(said)
    assert not directory.exists()
    assert token not in run("losetup", "--list").stdout


def test_what_a_killed_lane_had_is_removed(
    staying: tuple[subprocess.Popen[str], str, Path],
) -> None:
    process, token, directory = staying
    assert directory not in sessions.abandoned()
    assert token in run("losetup", "--list").stdout
    process.kill()
    told(process)
    assert token in run("losetup", "--list").stdout, "the kernel detached it: nothing to see here"
    run(sys.executable, "-m", "tests.sessions", cwd=PROJECT)
    assert not directory.exists()
    assert token not in run("losetup", "--list").stdout
    eventually(lambda: token not in run("ps", "-eo", "args").stdout, "end of both lanes")

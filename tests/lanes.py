"""All tests in two lanes at the same time: alone they use half of two processors.

    python -m tests.lanes FOLDER... [-- PYTEST_OPTION...]

Lane 1 is the host itself, as for tests that are run by name. Lane 2 has its own network,
processes, /run, /var/tmp and libvirt, and no way to the outside; it takes all of that with
it when it ends. Lane 1 is seen as it goes, lane 2 when lane 1 is over. Where the host has
little memory, one processor, or no right to namespaces, all tests run one after the other.

Both have the same kernel, /dev, processors, and files of this checkout. What a test looks at
there, or changes, carries the name of its session's directory, and so is nobody else's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO

from blocks.errors import FiftyError
from tests import packages, sessions
from tests.waiting import eventually

PROJECT = Path(__file__).parents[1]
#: The tests of lane 2, in their order; all others are in lane 1. Both are to take about the
#: same time, also with --quick: pytest's last lines tell it, and which files take long.
#: What keeps two processors busy by itself is all in here, so that no two of that meet; what
#: needs the world outside cannot be, but for the packages of the site's image.
LANE_2 = (
    "tests/unit",
    "tests/host/test_fabric_*.py",
    "tests/host/test_tenants.py",
    "tests/faults",
    "tests/service",
    "tests/matrix",
    "tests/e2e/test_concurrency.py",
    "tests/e2e/test_certification.py",
    "tests/e2e/test_snapshots.py",
    "tests/chaos",
)
#: Tests that have no site, and so no image.
_WITHOUT_SITE = ("tests/unit", "tests/host/")
_PYTEST = (sys.executable, "-m", "pytest", "--timeout=900")
_NO_TESTS = 5  # pytest's exit code
_INTERRUPTED = 128 + signal.SIGINT
_MEMORY_GIB = 6
_UNSHARE = (
    *("unshare", "--mount", "--net", "--pid", "--uts", "--ipc"),
    *("--fork", "--kill-child=KILL", "--mount-proc"),
)
#: What of lane 2 is where, by its name in the lane's directory. The last one hides that.
_PLACES = {
    "libvirt-etc": "/etc/libvirt",
    "libvirt-cache": "/var/cache/libvirt",
    "libvirt-lib": "/var/lib/libvirt",
    "libvirt-log": "/var/log/libvirt",
    "var-tmp": "/var/tmp",
}
#: $1: the lane's directory; $2: the project's; then what is run. The shell stays, as the
#: first process: it takes the exit status of orphans.
_FIRST_PROCESS = f"""
set -e
lane=$1 project=$2
shift 2
# What is mounted by others could not be removed by them as long as it is held here.
findmnt --noheadings --raw --output TARGET | grep -E '^(/run|/var/tmp)/' | sort -r |
  xargs -r umount --lazy
mount -t tmpfs -o mode=755 none /run
mkdir -p /run/lock /run/netns
if test -c /dev/kvm; then
  # One of its own: the last one who stops a libvirtd gives it back its owner and mode.
  mknod -m 0600 /run/kvm c 10 232
  mount --bind /run/kvm /dev/kvm
fi
mount --rbind /sys/fs/cgroup "$lane/cgroup"
mount -t sysfs none /sys  # whose links it shows is decided when it is mounted
mount --rbind "$lane/cgroup" /sys/fs/cgroup
umount --lazy "$lane/cgroup"  # libvirt would look for the cgroups there, where they are hidden
# libvirt's settings and what it has found out about this QEMU, but no definitions.
cp -a /etc/libvirt/. "$lane/libvirt-etc"
rm -rf "$lane/libvirt-etc/qemu" "$lane/libvirt-etc/storage"
cp -a /var/cache/libvirt/. "$lane/libvirt-cache"
mkdir "$lane/libvirt-lib/qemu" "$lane/libvirt-log/qemu"
ip link set lo up
{"; ".join(f'mount --bind "$lane/{name}" {place}' for name, place in _PLACES.items())}
cd "$project"
touch /var/tmp/entered
code=0
"$@" || code=$?
exit $code
"""


class OneLane(Exception):
    """There can be no two lanes; the message says why."""


class Lanes:
    """Runs two commands at the same time: one as it is, one in lane 2.

    SIGINT and SIGTERM are for both: each gets a SIGINT, and time to end. Where this process
    is killed, lane 2 ends at once with all that it holds, and lane 1 gets a SIGINT.

    Args:
        directory: Of a session of this process (see `tests.sessions`).
    """

    def __init__(self, directory: Path) -> None:
        self._lane = directory / sessions.LANE
        self._log = directory / "lane-2.log"
        self._running: list[subprocess.Popen[bytes]] = []
        self._interrupted = False
        for name in ("cgroup", *_PLACES):
            (self._lane / name).mkdir(mode=0o711, parents=True)
        (self._lane / "var-tmp").chmod(0o1777)

    def __enter__(self) -> Lanes:
        numbers = (signal.SIGINT, signal.SIGTERM)
        self._handlers = [(each, signal.signal(each, self._interrupt)) for each in numbers]
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        for process in self._running:
            process.kill()  # nothing, but where something here went wrong
            process.wait()
        for number, handler in self._handlers:
            signal.signal(number, handler)

    def fetch_packages(self) -> Path:
        """Fetch what images are made of; the directory, as lane 2 has it.

        Raises:
            OneLane: It cannot be had.
        """
        here = self._lane / "var-tmp"
        try:
            found = packages.fetch(here / "packages")
        except FiftyError as error:
            raise OneLane(f"no packages for images: {error.message}") from error
        return _PLACES["var-tmp"] / found.relative_to(here)

    def run(self, first: Sequence[str], second: Sequence[str]) -> int:
        """Run both, and show what they say.

        Returns:
            0, or the exit code of a lane that is red; one that has no tests is not.

        Raises:
            OneLane: This host has no lane 2 for us; nothing was run.
        """
        entering = [*_UNSHARE, "sh", "-c", _FIRST_PROCESS, "lane-2", self._lane, PROJECT]
        with self._log.open("wb") as log:
            lane_2 = self._start("KILL", [*map(str, entering), *second], log)
        entered = self._lane / "var-tmp" / "entered"
        eventually(lambda: entered.exists() or lane_2.poll() is not None, "lane 2")
        if self._interrupted:
            return _INTERRUPTED
        if not entered.exists():
            said = self._log.read_text(errors="replace").splitlines()
            raise OneLane(said[-1] if said else "it cannot be entered")
        codes = [self._start("INT", first).wait()]
        print("\n== lane 2, from its beginning", flush=True)
        codes.append(self._show(lane_2))
        told = [f"lane {number} {_told(code)}" for number, code in enumerate(codes, 1)]
        print(f"== {', '.join(told)}", flush=True)
        return verdict(codes)

    def _start(
        self, at_our_end: str, command: Sequence[str], output: IO[bytes] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a lane, in a process group of its own: Ctrl-C comes by us, and once."""
        process = subprocess.Popen(
            ["setpriv", f"--pdeathsig={at_our_end}", *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            process_group=0,
        )
        self._running.append(process)
        return process

    def _show(self, lane_2: subprocess.Popen[bytes]) -> int:
        """Print what lane 2 has said, and says until it ends; its exit code."""
        with self._log.open("rb") as log:
            while True:
                code = lane_2.poll()
                sys.stdout.buffer.write(log.read())
                sys.stdout.buffer.flush()
                if code is not None:
                    return code
                with contextlib.suppress(subprocess.TimeoutExpired):
                    lane_2.wait(timeout=0.5)

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        self._interrupted = True
        for process in self._running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)


def divided(folders: Sequence[str]) -> tuple[list[str], list[str]]:
    """What pytest is told in lane 1, and in lane 2.

    Args:
        folders: All that is to be run, from the project's directory.
    """
    declared = (path for pattern in LANE_2 for path in sorted(PROJECT.glob(pattern)))
    known = [str(path.relative_to(PROJECT)) for path in declared]
    second = [path for path in known if any(Path(path).is_relative_to(one) for one in folders)]
    first = [one for one in folders if one not in second]
    return [*first, *(f"--ignore={path}" for path in second if path not in folders)], second


def verdict(codes: Sequence[int]) -> int:
    """The exit code of all, from those of the lanes (negative: ended by a signal)."""
    red = [code for code in codes if code not in (0, _NO_TESTS)]
    return (red[0] if red[0] > 0 else 128 - red[0]) if red else min(codes)


def _told(code: int) -> str:
    told = {0: "is green", _NO_TESTS: "has no tests"}
    return told.get(code, f"is red (exit code {code})")


def _check_host() -> None:
    processors = len(os.sched_getaffinity(0))
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    if processors < 2 or gib < _MEMORY_GIB:
        raise OneLane(
            f"this host has {processors} processor(s) and {gib:.1f} GiB of memory; "
            f"2 and {_MEMORY_GIB} are needed"
        )


def main() -> int:
    """Run the tests in these folders in two lanes, or in one where two are not possible."""
    words = [*sys.argv[1:], "--"]
    folders, options = words[: words.index("--")], words[words.index("--") + 1 : -1]
    first, second = divided(folders)
    directory = sessions.begin()
    try:
        _check_host()
        with Lanes(directory) as lanes:
            pytest = [*_PYTEST, "-o", "cache_dir=.pytest_cache/lane-2"]  # of what has failed
            if not all(path.startswith(_WITHOUT_SITE) for path in second):
                pytest = ["env", f"{packages.VARIABLE}={lanes.fetch_packages()}", *pytest]
            return lanes.run([*_PYTEST, *first, *options], [*pytest, *second, *options])
    except OneLane as reason:
        print(f"== not in two lanes: {reason}", flush=True)
    finally:
        sessions.end(directory)
    os.execv(sys.executable, [*_PYTEST, *folders, *options])  # noqa: S606


if __name__ == "__main__":
    sys.exit(main())
